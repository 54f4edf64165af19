//! What of `[tls]` no single key can tell.

use super::Config;
use super::Tls;
use super::value::TlsMode;

/// How many names a certificate may have: Let's Encrypt's limit.
const MOST_NAMES: usize = 100;

impl Config {
    /// The names to get a certificate for, sorted, each once.
    pub fn acme_names(&self) -> Vec<String> {
        let Tls { acme, .. } = &self.tls;
        let mut names: Vec<_> = acme.domains.iter().map(|domain| domain.as_str().to_owned()).collect();
        if names.is_empty() && !self.public_host.as_str().is_empty() {
            names.push(self.public_host.as_str().to_owned());
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Tls {
    /// What a mode needs is there, and can be meant so.
    pub(super) fn check(&self, config: &Config) -> Result<(), (&'static str, String)> {
        self.check_acme()?;
        match self.mode {
            TlsMode::SelfSigned => Ok(()),
            TlsMode::Files => self.check_files(),
            TlsMode::Acme => check_names(config),
        }
    }

    fn check_files(&self) -> Result<(), (&'static str, String)> {
        let keys = [("tls.certificate", &self.certificate), ("tls.key", &self.key)];
        match keys.into_iter().find(|(_, path)| path.as_os_str().is_empty()) {
            Some((key, _)) => Err((key, "is empty: tls.mode = \"files\" needs the path of a PEM file here".to_owned())),
            None => Ok(()),
        }
    }

    fn check_acme(&self) -> Result<(), (&'static str, String)> {
        let acme = &self.acme;
        if !acme.directory.is_tls() {
            let cure = "write the URL of the authority's directory, such as \
                        \"https://acme-v02.api.letsencrypt.org/directory\"";
            return Err(("tls.acme.directory", format!("\"{}\" is not https: {cure}", acme.directory)));
        }
        if acme.challenges.is_empty() {
            return Err((
                "tls.acme.challenges",
                "is empty: write \"tls-alpn-01\", \"http-01\" or both into it".to_owned(),
            ));
        }
        let mut rest = acme.challenges.iter();
        while let Some(challenge) = rest.next() {
            if rest.as_slice().contains(challenge) {
                return Err(("tls.acme.challenges", format!("\"{challenge}\" stands there twice: write it once")));
            }
        }
        Ok(())
    }
}

/// Only names can be certified, and so many.
fn check_names(config: &Config) -> Result<(), (&'static str, String)> {
    const KEY: &str = "tls.acme.domains";
    let names = config.acme_names();
    let is_address = |name: &&String| name.parse::<std::net::IpAddr>().is_ok();
    if let Some(address) = names.iter().find(is_address) {
        let why = format!("is empty, and public_host is the address \"{address}\": authorities certify names");
        return Err((KEY, format!("{why}, so write those of this host here")));
    }
    match names.len() {
        0 => {
            let needs = "needs the names of this host, such as [\"calls.example.org\"]";
            Err((KEY, format!("is empty, and so is public_host: tls.mode = \"acme\" {needs}")))
        }
        1..=MOST_NAMES => Ok(()),
        more => Err((KEY, format!("has {more} names: a certificate has {MOST_NAMES} at most"))),
    }
}
