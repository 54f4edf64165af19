//! Autobahn's cases 1 to 5, 7 and 10.

use super::*;

/// The three ways in which many of the cases are written.
const CHOPS: [Chop; 3] = [Chop::Whole, Chop::Frames, Chop::Octets(1)];

#[tokio::test]
async fn messages_of_every_length_arrive_whole() {
    let lengths = [125, 126, 127, 128, 65_535, 65_536];
    let texts = (2..).zip(lengths).map(|(n, length)| Case::new(format!("1.1.{n}")).says(&candidate_for(length)));
    let binary = |n: usize, length| Case::new(format!("1.2.{n}")).frame(FIN | BINARY, vec![0xfe; length]).bad_message();
    let binaries = (1..).zip([0].into_iter().chain(lengths)).map(|(n, length)| binary(n, length));
    let in_chops = [
        Case::new("1.1.8").says(&candidate_for(65_536)).chopped(Chop::Octets(997)),
        binary(8, 65_536).chopped(Chop::Octets(997)),
    ];

    play([Case::new("1.1.1").frame(FIN | TEXT, "").bad_message()]).await;
    play(texts.chain(binaries).chain(in_chops)).await;
}

#[tokio::test]
async fn pings_are_answered_with_what_they_carry_and_pongs_ignored() {
    let answered = |number: &str, payload: &[u8]| Case::new(number).frame(FIN | PING, payload).pong(payload);
    let ten = |number: &str, chop| {
        let payloads = (0..10).map(|n| format!("payload-{n}"));
        payloads.fold(Case::new(number), |case, it| case.frame(FIN | PING, &it).pong(it)).chopped(chop)
    };

    play([
        answered("2.1", b""),
        answered("2.2", b"Hello, world!"),
        answered("2.3", &[0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff]),
        answered("2.4", &[0xfe; 125]),
        Case::new("2.5").frame(FIN | PING, [0xfe; 126]).closes(1002),
        answered("2.6", &[0xfe; 125]).chopped(Chop::Octets(1)),
        Case::new("2.7").frame(FIN | PONG, ""),
        Case::new("2.8").frame(FIN | PONG, "unsolicited pong payload"),
        Case::new("2.9").frame(FIN | PONG, "unsolicited").frame(FIN | PING, "ping payload").pong("ping payload"),
        ten("2.10", Chop::Whole),
        ten("2.11", Chop::Octets(1)),
    ])
    .await;
}

#[tokio::test]
async fn reserved_bits_end_the_connection_and_what_came_before_counts() {
    let after_text = |number: &str, bits, chop| {
        let case = Case::new(number).says("before").frame(FIN | bits | TEXT, saying("with reserved bits"));
        case.frame(FIN | PING, "").chopped(chop).closes(1002)
    };

    play([
        Case::new("3.1").frame(FIN | RSV3 | TEXT, saying("with reserved bits")).closes(1002),
        after_text("3.2", RSV2, Chop::Whole),
        after_text("3.3", RSV2 | RSV3, Chop::Frames),
        after_text("3.4", RSV1, Chop::Octets(1)),
        Case::new("3.5").frame(FIN | RSV1 | RSV3 | BINARY, [0xfe; 8]).closes(1002),
        Case::new("3.6").frame(FIN | RSV1 | RSV2 | PING, "").closes(1002),
        Case::new("3.7").frame(FIN | RSV1 | RSV2 | RSV3 | CLOSE, "").closes(1002),
    ])
    .await;
}

#[tokio::test]
async fn reserved_opcodes_end_the_connection_and_what_came_before_counts() {
    for (kind, first) in [(1, 3), (2, 11)] {
        let number = |n: u8| format!("4.{kind}.{n}");
        let after_text = |n: u8, payload: &str, chop| {
            let case = Case::new(number(n)).says("before").frame(FIN | (first + n - 1), payload);
            case.frame(FIN | PING, "").chopped(chop).closes(1002)
        };
        play([
            Case::new(number(1)).frame(FIN | first, "").closes(1002),
            Case::new(number(2)).frame(FIN | (first + 1), "reserved opcode payload").closes(1002),
            after_text(3, "", Chop::Whole),
            after_text(4, "reserved opcode payload", Chop::Frames),
            after_text(5, "reserved opcode payload", Chop::Octets(1)),
        ])
        .await;
    }
}

#[tokio::test]
async fn fragments_make_one_message_with_pings_between_them_and_nothing_else() {
    play(legal_fragments()).await;
    play(illegal_fragments()).await;
}

#[tokio::test]
async fn closing_handshakes_are_answered_by_the_same_code_and_nothing_after_them_counts() {
    play(closes()).await;
    let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    let closed = |number: String, code: u16| Case::new(number).frame(FIN | CLOSE, code.to_be_bytes());
    play((1..).zip(codes).map(|(n, code): (u8, u16)| closed(format!("7.7.{n}"), code).closes(code))).await;
    let codes = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    play((1..).zip(codes).map(|(n, code): (u8, u16)| closed(format!("7.9.{n}"), code).closes(1002))).await;
    play((1..).zip([5000, 65_535]).map(|(n, code): (u8, u16)| closed(format!("7.13.{n}"), code).closes(1002))).await;
}

#[tokio::test]
async fn all_of_this_holds_inside_tls() {
    play_inside_tls([Case::new("1.1.8").says(&candidate_for(65_536)).chopped(Chop::Octets(997))]).await;
    play_inside_tls([Case::new("3.2").says("before").frame(FIN | RSV2 | TEXT, saying("x")).closes(1002)]).await;
    play_inside_tls(legal_fragments()).await;
    play_inside_tls(illegal_fragments()).await;
    play_inside_tls(closes()).await;
}

/// 5.3 to 5.8, 5.19, 5.20 and 10.1.1.
fn legal_fragments() -> Vec<Case> {
    let text = saying("fragment1fragment2");
    let (head, tail) = text.as_bytes().split_at(text.len() - 11);
    let mut cases = Vec::new();
    for (n, chop) in (0..).zip(CHOPS) {
        let whole = Case::new(format!("5.{}", 3 + n)).fragments(TEXT, [head, tail]);
        let parted = Case::new(format!("5.{}", 6 + n)).frame(TEXT, head).frame(FIN | PING, "ping payload");
        let parted = parted.frame(FIN | CONTINUATION, tail).pong("ping payload");
        cases.extend([whole, parted].map(|case| case.echo("fragment1fragment2").chopped(chop)));
    }
    let text = saying("fragment1fragment2fragment3fragment4fragment5");
    let pieces: Vec<_> = text.as_bytes().chunks(text.len().div_ceil(5)).collect();
    for (number, chop) in [("5.19", Chop::Frames), ("5.20", Chop::Whole)] {
        let case = Case::new(number).frame(TEXT, pieces[0]).frame(CONTINUATION, pieces[1]).frame(FIN | PING, "1");
        let case = case.frame(CONTINUATION, pieces[2]).frame(CONTINUATION, pieces[3]).frame(FIN | PING, "2");
        let case = case.frame(FIN | CONTINUATION, pieces[4]).pong("1").pong("2");
        cases.push(case.echo("fragment1fragment2fragment3fragment4fragment5").chopped(chop));
    }
    let candidate = candidate_for(65_536);
    let text = saying(&candidate);
    cases.push(Case::new("10.1.1").fragments(TEXT, text.as_bytes().chunks(1300)).echo(&candidate));
    cases
}

/// The rest of 5.
fn illegal_fragments() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, opcode) in [("5.1", PING), ("5.2", PONG)] {
        cases.push(Case::new(number).fragments(opcode, [&b"fragment1"[..], b"fragment2"]).closes(1002));
    }
    for (n, chop) in (0..).zip(CHOPS) {
        for (number, fin) in [(9 + n, FIN), (12 + n, 0)] {
            let case = Case::new(format!("5.{number}")).frame(fin | CONTINUATION, "nothing to continue");
            cases.push(case.frame(FIN | TEXT, saying("after")).chopped(chop).closes(1002));
        }
    }
    let text = saying("fragment1fragment2");
    let halves = text.as_bytes().split_at(text.len() - 11);
    let case = Case::new("5.15").fragments(TEXT, [halves.0, halves.1]).echo("fragment1fragment2");
    cases.push(case.frame(CONTINUATION, "fragment3").frame(FIN | TEXT, saying("after")).closes(1002));
    for (number, fin) in [("5.16", 0), ("5.17", FIN)] {
        let twice = (0..2).fold(Case::new(number), |case, _| {
            case.frame(fin | CONTINUATION, "fragment1").fragments(TEXT, [halves.0, halves.1])
        });
        cases.push(twice.closes(1002));
    }
    cases.push(Case::new("5.18").frame(TEXT, halves.0).frame(FIN | TEXT, halves.1).closes(1002));
    cases
}

/// 7.1 to 7.5.
fn closes() -> Vec<Case> {
    let normal = 1000_u16.to_be_bytes();
    let with_reason = |number: &str, reason: &[u8]| Case::new(number).frame(FIN | CLOSE, [&normal, reason].concat());
    vec![
        Case::new("7.1.1").says("Hello World!").frame(FIN | CLOSE, normal).closes(1000),
        Case::new("7.1.2").frame(FIN | CLOSE, normal).frame(FIN | CLOSE, normal).closes(1000),
        Case::new("7.1.3").frame(FIN | CLOSE, normal).frame(FIN | PING, "").closes(1000),
        Case::new("7.1.4").frame(FIN | CLOSE, normal).frame(FIN | TEXT, saying("after")).closes(1000),
        Case::new("7.1.5").frame(TEXT, "{").frame(FIN | CLOSE, normal).frame(FIN | CONTINUATION, "}").closes(1000),
        Case::new("7.1.6").says(&candidate_for(65_536)).frame(FIN | CLOSE, normal).frame(FIN | PING, "").closes(1000),
        Case::new("7.3.1").frame(FIN | CLOSE, "").hears(Heard::Close(None)),
        Case::new("7.3.2").frame(FIN | CLOSE, "a").closes(1002),
        with_reason("7.3.3", b"").closes(1000),
        with_reason("7.3.4", b"Hello World!").closes(1000),
        with_reason("7.3.5", &[b'*'; 123]).closes(1000),
        with_reason("7.3.6", &[b'*'; 124]).closes(1002),
        with_reason("7.5.1", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited").closes(1007),
    ]
}
