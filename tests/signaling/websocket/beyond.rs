//! What Autobahn's list leaves out: masks, limits, and what is declared and never comes.

use super::*;

#[tokio::test]
async fn frames_that_are_not_masked_end_the_connection() {
    let text = saying("not masked");
    let header = [FIN | TEXT, u8::try_from(text.len()).unwrap()];

    play([
        Case::new("text").bytes([&header, text.as_bytes()].concat()).closes(1002),
        Case::new("ping").says("before").bytes(vec![FIN | PING, 0]).closes(1002),
        Case::new("close").bytes(vec![FIN | CLOSE, 2, 0x03, 0xe8]).closes(1002),
        Case::new("in a message").frame(TEXT, "{").bytes(vec![FIN | CONTINUATION, 1, b'}']).closes(1002),
    ])
    .await;
}

#[tokio::test]
async fn close_codes_of_later_registrations_and_of_tls_are_told_apart() {
    let closed = |code: u16| Case::new(code.to_string()).frame(FIN | CLOSE, code.to_be_bytes());

    play([1012, 1013].map(|code| closed(code).closes(code))).await;
    play([1, 1014, 1015].map(|code| closed(code).closes(1002))).await;
}

#[tokio::test]
async fn messages_beyond_64_kib_are_refused_by_the_length_they_declare_and_nothing_is_kept_for_them() {
    let server = Server::start(&config(LIMITS));
    let before = peak_kib(&server);
    let too_large = |case: Case| case.hears(Heard::Error("too-large".into())).closes(1009);
    let declared = |length: u64| Case::new(length.to_string()).bytes([head(FIN | TEXT, length), vec![0; 4]].concat());

    for length in [65_537, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
        too_large(declared(length)).play(&server, false).await;
        let in_a_message = Case::new(length.to_string()).frame(TEXT, "{");
        let rest = [head(FIN | CONTINUATION, length), vec![0; 4]].concat();
        too_large(in_a_message.bytes(rest)).play(&server, false).await;
    }
    let halves = [&[b' '; 32_768][..], &[b' '; 32_769]];
    too_large(Case::new("in two").fragments(TEXT, halves)).play(&server, false).await;
    let many = (0..).map(|_| &b"    "[..]).take(16_385);
    too_large(Case::new("in many").fragments(TEXT, many)).play(&server, false).await;

    let rise = peak_kib(&server) - before;
    assert!(rise < (1 << 31) / 1024, "{rise} KiB were reserved for what never came");
}

#[tokio::test]
async fn control_frames_count_as_messages_do() {
    let flood = |first: u8| (0..2000).fold(Case::new(first.to_string()), |case, _| case.frame(first, ""));
    let server = Server::start(&config(LIMITS));

    for first in [FIN | PING, FIN | PONG] {
        let mut peer = Peer::sign_in(&server, false).await;
        peer.write(&flood(first).frames.concat()).await;
        let heard = peer.hear_out("flood").await;
        assert_eq!(heard.last(), Some(&Heard::Close(Some(4400))));
    }
}

/// The most that the process has had reserved at a time.
fn peak_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}
