use futures_util::FutureExt;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio_rustls::TlsAcceptor;

use super::*;

const WITHIN: Duration = Duration::from_secs(60);

/// Takes one request over `stream`, and gives `answer`; what was asked.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) -> String {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n{}") {
        assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
    }
    // Who refuses an answer doesn't wait for its end.
    let _ = stream.write_all(answer).await;
    String::from_utf8(asked).unwrap()
}

async fn exchange(raw: &'static [u8]) -> (Result<Vec<u8>, PostError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/sign-in?a=b", listener.local_addr().unwrap());
    let target = Target::new(&url, "secret", RootCertStore::empty(), WITHIN).unwrap();
    let service = tokio::spawn(async move { answer(listener.accept().await.unwrap().0, raw).await });
    let answer = target.post("{}".into()).await;
    (answer, service.await.unwrap())
}

#[tokio::test]
async fn a_post_has_the_secret_and_brings_the_answers_body() {
    let (answer, asked) = exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;

    assert_eq!(answer.unwrap(), b"ok");
    let asked = asked.to_ascii_lowercase();
    assert!(asked.starts_with("post /sign-in?a=b http/1.1\r\n"), "{asked}");
    for line in
        ["\r\nauthorization: bearer secret\r\n", "\r\ncontent-type: application/json\r\n", "\r\nhost: 127.0.0.1:"]
    {
        assert!(asked.contains(line), "{asked}");
    }
}

#[tokio::test]
async fn other_statuses_and_broken_answers_are_errors_and_a_redirect_is_one() {
    let moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n";

    assert!(matches!(exchange(moved).await.0, Err(PostError::Status(status)) if status == 307));
    assert!(matches!(exchange(b"not HTTP\r\n\r\n").await.0, Err(PostError::Http(_))));
    assert!(matches!(exchange(b"").await.0, Err(PostError::Http(_))));
    let broken = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok";
    assert!(matches!(exchange(broken).await.0, Err(PostError::Answer(_))));
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; MAX_ANSWER + 1]].concat();
    assert!(matches!(exchange(endless.leak()).await.0, Err(PostError::Answer(_))));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = Target::new(&format!("http://{closed}"), "s", RootCertStore::empty(), WITHIN).unwrap();
    assert!(matches!(nobody.post("{}".into()).await, Err(PostError::Connect(_))));
}

#[tokio::test]
async fn over_tls_only_who_has_a_trusted_certificate_of_the_name_is_asked() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = tokio::spawn(async move {
        loop {
            if let Ok(stream) = acceptor.accept(listener.accept().await.unwrap().0).await {
                answer(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut others = RootCertStore::empty();
    others.add(other.cert.der().clone()).unwrap();
    let post = async |host: &str, roots: &RootCertStore| {
        let target = Target::new(&format!("https://{host}:{port}/"), "secret", roots.clone(), WITHIN).unwrap();
        target.post("{}".into()).await
    };

    assert!(matches!(post("localhost", &others).await, Err(PostError::Connect(_))));
    assert!(matches!(post("127.0.0.1", &roots).await, Err(PostError::Connect(_))));
    assert_eq!(post("localhost", &roots).await.unwrap(), b"ok");
    assert!(matches!(
        Target::new("https://localhost/", "secret", RootCertStore::empty(), WITHIN).err(),
        Some(BadTarget::NoRoots)
    ));
    service.abort();
}

#[tokio::test]
async fn names_are_looked_up_in_turn_and_addresses_are_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target =
        |host: &str| Target::new(&format!("http://{host}:{port}/"), "s", RootCertStore::empty(), WITHIN).unwrap();
    let (ip, named) = (target("127.0.0.1"), target("localhost"));
    let turns = u32::try_from(MAX_LOOKUPS).unwrap();
    let [_all, all] = [&ip, &named].map(|target| target.lookups.try_acquire_many(turns).unwrap());

    assert_eq!(find(&ip).await.unwrap(), [SocketAddr::from(([127, 0, 0, 1], port))]);
    let mut waiting = find(&named).boxed();
    assert!((&mut waiting).now_or_never().is_none());
    drop(all);
    assert!(waiting.await.unwrap().contains(&SocketAddr::from(([127, 0, 0, 1], port))));

    // One that nobody waits for any more gives its turn back when it is over, and no sooner.
    assert!(find(&named).now_or_never().is_none());
    assert_eq!(named.lookups.available_permits(), MAX_LOOKUPS - 1);
    let _again = named.lookups.acquire_many(turns).await.unwrap();
}

#[tokio::test]
async fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Nobody accepts, and there is room for one (and for one more, as Linux counts).
    let full = socket.listen(1).unwrap();
    let silent = full.local_addr().unwrap();
    let _held = [TcpStream::connect(silent).await.unwrap(), TcpStream::connect(silent).await.unwrap()];
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = open.local_addr().map(|addr| (open, addr)).unwrap();

    let stream = connect(&[silent, closed, open.1], Duration::from_millis(300)).await.unwrap();

    assert_eq!(stream.peer_addr().unwrap(), open.1);
}

async fn find(target: &Target) -> io::Result<Vec<SocketAddr>> {
    look_up(&target.host, target.port, &target.lookups).await
}
