//! One certificate, from asking for it to having it.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use instant_acme::Account;
use instant_acme::AuthorizationStatus;
use instant_acme::BodyWrapper;
use instant_acme::BytesResponse;
use instant_acme::ChallengeType;
use instant_acme::Error;
use instant_acme::HttpClient;
use instant_acme::Identifier;
use instant_acme::NewAccount;
use instant_acme::NewOrder;
use instant_acme::Order;
use instant_acme::OrderStatus;
use instant_acme::RetryPolicy;

use super::Settings;
use super::failure::Failure;
use super::failure::cure;
use super::failure::in_words;
use super::store;
use super::store::Store;
use crate::config::value::Challenge;
use crate::net::fetch::Fetcher;
use crate::net::tls::Challenges;
use crate::net::tls::Offer;

/// How long an authority may take to make up its mind, and again to issue.
const DECIDES_WITHIN: Duration = Duration::from_secs(120);

/// A certificate chain and its key, as PEM.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

/// Why there is no certificate this way.
enum Stop {
    /// The authority wasn't shown what it wants to see: another kind of challenge may do.
    Unproved(String),
    /// None will do.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Asks for a certificate for all names, and proves them by the first kind of challenge that the authority is content with.
///
/// # Errors
///
/// [`Failure`], with what was wrong with each.
pub(super) async fn issue(
    settings: &Settings,
    store: &Store,
    fetcher: &Fetcher,
    challenges: &Challenges,
) -> Result<Issued, Failure> {
    let account = account(settings, store, fetcher).await?;
    let mut unproved = Vec::new();
    for challenge in &settings.challenges {
        match attempt(settings, &account, challenges, *challenge).await {
            Ok(issued) => {
                if !unproved.is_empty() {
                    tracing::info!("the names were proved by {challenge} only: {}", unproved.join("; "));
                }
                return Ok(issued);
            }
            Err(Stop::Unproved(why)) => unproved.push(format!("by {challenge}: {why}")),
            Err(Stop::Failed(failure)) => return Err(failure),
        }
    }
    Err(Failure::refused(unproved.join("; ")))
}

/// The account kept, if the authority still knows it, or a new one.
async fn account(settings: &Settings, store: &Store, fetcher: &Fetcher) -> Result<Account, Failure> {
    let builder = || Account::builder_with_http(Box::new(Http(fetcher.clone())));
    let contact = format!("mailto:{}", settings.email);
    let contact: &[&str] = if settings.email.is_empty() { &[] } else { &[&contact] };
    if let Some(kept) = store.account() {
        let account = builder().from_credentials(kept.credentials).await?;
        // Besides telling whom to write to, this asks whether the account is still good.
        match account.update_contacts(contact).await {
            Ok(()) => return Ok(account),
            Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => {
                tracing::info!("the authority doesn't know the account any more: making another one");
                store.forget_account();
            }
            Err(error) => return Err(error.into()),
        }
    }
    let asked = NewAccount { contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder().create(&asked, settings.directory.clone(), None).await?;
    if let Err(error) = store.keep_account(&store::Account { email: settings.email.clone(), credentials }) {
        tracing::warn!(
            "cannot keep the account, a restart or other [tls.acme] settings will make another one: {error}"
        );
    }
    Ok(account)
}

/// As RFC 8555, section 6.7 has it.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

async fn attempt(
    settings: &Settings,
    account: &Account,
    challenges: &Challenges,
    challenge: Challenge,
) -> Result<Issued, Stop> {
    let names: Vec<_> = settings.names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let offers = offer(&mut order, challenges, challenge).await?;
    let retries = RetryPolicy::new().timeout(DECIDES_WITHIN);
    let ready = order.poll_ready(&retries).await;
    drop(offers);
    match ready {
        Ok(OrderStatus::Ready) => (),
        Ok(_) | Err(Error::Api(_)) => return Err(unproved(&mut order, challenge, ready.err()).await),
        Err(error) => return Err(error.into()),
    }
    let (request, key) = request(&settings.names)?;
    order.finalize_csr(&request).await?;
    let chain = order.poll_certificate(&retries).await?;
    Ok(Issued { chain, key })
}

/// Has ready what the authority wants to see of each name, and tells it so.
async fn offer(order: &mut Order, challenges: &Challenges, challenge: Challenge) -> Result<Vec<Offer>, Stop> {
    let mut offers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let Some(mut asked) = authorization.challenge(kind(challenge)) else {
            return Err(Stop::Unproved(format!("{name}: the authority doesn't offer it")));
        };
        let key = asked.key_authorization();
        offers.push(match challenge {
            Challenge::TlsAlpn01 => challenges.prove(&name, key.digest().as_ref())?,
            Challenge::Http01 => challenges.tell(&asked.token, key.as_str().to_owned())?,
        });
        asked.set_ready().await?;
    }
    Ok(offers)
}

fn kind(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Http01 => ChallengeType::Http01,
    }
}

/// What the authority says of each name that it isn't content with, or of the `whole` order.
async fn unproved(order: &mut Order, challenge: Challenge, whole: Option<Error>) -> Stop {
    let (mut reasons, mut cures) = (Vec::new(), BTreeSet::new());
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else { continue };
        // What it said before is from when it was asked.
        let _ = authorization.refresh().await;
        let name = authorization.identifier().to_string();
        for problem in authorization.challenges.iter().filter_map(|asked| asked.error.as_ref()) {
            reasons.push(format!("{name}: {}", in_words(problem)));
            cures.insert(cure(problem, Some(challenge)));
        }
    }
    let cures: Vec<_> = cures.into_iter().collect();
    match (reasons.is_empty(), whole) {
        (false, _) => Stop::Unproved(format!("{}: {}", reasons.join("; "), cures.join("; "))),
        (true, Some(error)) => error.into(),
        (true, None) => Stop::Unproved("the authority gives no reason".to_owned()),
    }
}

/// What is asked to be signed, and its key as PEM.
fn request(names: &[String]) -> Result<(Vec<u8>, String), Failure> {
    let refused = |error: rcgen::Error| Failure::refused(error.to_string());
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(refused)?;
    let mut params = rcgen::CertificateParams::new(names).map_err(refused)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(refused)?;
    Ok((request.der().to_vec(), key.serialize_pem()))
}

/// How the library asks.
struct Http(Fetcher);

impl HttpClient for Http {
    fn request(
        &self,
        request: hyper::Request<BodyWrapper<hyper::body::Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let fetcher = self.0.clone();
        Box::pin(async move {
            let answer = fetcher.fetch(request).await.map_err(|error| Error::Other(Box::new(error)))?;
            Ok(BytesResponse::from(answer))
        })
    }
}
