//! Autobahn's cases 6: what text is UTF-8 and what isn't.

use super::*;

/// "κόσμε"
const COSMOS: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";
/// The same with a surrogate and more behind it.
const BROKEN: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";

/// From 6.7 on: of each, which are valid.
const VALID: &[(u8, &[&[u8]])] = &[
    (9, &[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
    (11, &[b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf"]),
    (
        22,
        &[
            b"\xef\xbf\xbe",
            b"\xef\xbf\xbf",
            b"\xf0\x9f\xbf\xbe",
            b"\xf0\x9f\xbf\xbf",
            b"\xf0\xaf\xbf\xbe",
            b"\xf0\xaf\xbf\xbf",
            b"\xf0\xbf\xbf\xbe",
            b"\xf0\xbf\xbf\xbf",
            b"\xf1\x8f\xbf\xbe",
            b"\xf1\x8f\xbf\xbf",
            b"\xf1\x9f\xbf\xbe",
            b"\xf1\x9f\xbf\xbf",
            b"\xf1\xaf\xbf\xbe",
            b"\xf1\xaf\xbf\xbf",
            b"\xf1\xbf\xbf\xbe",
            b"\xf1\xbf\xbf\xbf",
            b"\xf2\x8f\xbf\xbe",
            b"\xf2\x8f\xbf\xbf",
            b"\xf2\x9f\xbf\xbe",
            b"\xf2\x9f\xbf\xbf",
            b"\xf2\xaf\xbf\xbe",
            b"\xf2\xaf\xbf\xbf",
            b"\xf2\xbf\xbf\xbe",
            b"\xf2\xbf\xbf\xbf",
            b"\xf3\x8f\xbf\xbe",
            b"\xf3\x8f\xbf\xbf",
            b"\xf3\x9f\xbf\xbe",
            b"\xf3\x9f\xbf\xbf",
            b"\xf3\xaf\xbf\xbe",
            b"\xf3\xaf\xbf\xbf",
            b"\xf3\xbf\xbf\xbe",
            b"\xf3\xbf\xbf\xbf",
            b"\xf4\x8f\xbf\xbe",
            b"\xf4\x8f\xbf\xbf",
        ],
    ),
    (
        23,
        &[
            b"\xef\xbf\xb9",
            b"\xef\xbf\xba",
            b"\xef\xbf\xbb",
            b"\xef\xbf\xbc",
            b"\xef\xbf\xbd",
            b"\xef\xbf\xbe",
            b"\xef\xbf\xbf",
        ],
    ),
];

/// Of each, which aren't, in the order of the list, with the number of the first.
const INVALID: &[(u8, usize, &[&[u8]])] = &[
    (8, 1, &[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
    (10, 1, &[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
    (11, 5, &[b"\xf4\x90\x80\x80"]),
    (
        12,
        1,
        &[
            b"\x80",
            b"\xbf",
            b"\x80\xbf",
            b"\x80\xbf\x80",
            b"\x80\xbf\x80\xbf",
            b"\x80\xbf\x80\xbf\x80",
            b"\x80\xbf\x80\xbf\x80\xbf",
        ],
    ),
    (14, 1, LAST_BYTE_MISSING),
    (16, 1, &[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
    (17, 1, &[b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"]),
    (18, 1, &[b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"]),
    (19, 1, &[b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"]),
    (
        20,
        1,
        &[
            b"\xed\xa0\x80",
            b"\xed\xad\xbf",
            b"\xed\xae\x80",
            b"\xed\xaf\xbf",
            b"\xed\xb0\x80",
            b"\xed\xbe\x80",
            b"\xed\xbf\xbf",
        ],
    ),
    (
        21,
        1,
        &[
            b"\xed\xa0\x80\xed\xb0\x80",
            b"\xed\xa0\x80\xed\xbf\xbf",
            b"\xed\xad\xbf\xed\xb0\x80",
            b"\xed\xad\xbf\xed\xbf\xbf",
            b"\xed\xae\x80\xed\xb0\x80",
            b"\xed\xae\x80\xed\xbf\xbf",
            b"\xed\xaf\xbf\xed\xb0\x80",
            b"\xed\xaf\xbf\xed\xbf\xbf",
        ],
    ),
];
const LAST_BYTE_MISSING: &[&[u8]] = &[
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xf8\x80\x80\x80",
    b"\xfc\x80\x80\x80\x80",
    b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    b"\xfb\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf",
];

#[tokio::test]
async fn text_arrives_whole_wherever_it_is_cut() {
    let hello = "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!";
    let (text, empty) = (saying(hello), [&b""[..]; 3]);
    let (head, tail) = text.as_bytes().split_at(text.find('\u{b5}').unwrap());
    let cosmos = std::str::from_utf8(COSMOS).unwrap();

    play([
        Case::new("6.1.1").frame(FIN | TEXT, "").bad_message(),
        Case::new("6.1.2").fragments(TEXT, empty).bad_message(),
        Case::new("6.1.3").fragments(TEXT, [b"", text.as_bytes(), b""]).echo(hello),
        Case::new("6.2.1").says(hello),
        Case::new("6.2.2").fragments(TEXT, [head, tail]).echo(hello),
        Case::new("6.2.3").fragments(TEXT, text.as_bytes().chunks(1)).echo(hello),
        Case::new("6.2.4").fragments(TEXT, saying(cosmos).as_bytes().chunks(1)).echo(cosmos),
    ])
    .await;
}

#[tokio::test]
async fn text_that_is_not_utf8_ends_the_connection_with_the_frame_that_shows_it() {
    let answered = |number: &str| Case::new(number).frame(TEXT, COSMOS).frame(FIN | PING, "taken").pong("taken");
    let beyond_unicode = b"\xf4\x90\x80\x80";

    play([
        Case::new("6.3.1").frame(FIN | TEXT, BROKEN).closes(1007),
        Case::new("6.3.2").fragments(TEXT, BROKEN.chunks(1)).closes(1007),
        // What would follow isn't needed.
        answered("6.4.1").frame(CONTINUATION, beyond_unicode).closes(1007),
        answered("6.4.2").frame(CONTINUATION, &beyond_unicode[..2]).closes(1007),
        in_chops("6.4.3", COSMOS.len() + beyond_unicode.len()),
        in_chops("6.4.4", COSMOS.len() + 2),
    ])
    .await;
}

/// One frame in two chops, parted after so many bytes of payload.
fn in_chops(number: &str, after: usize) -> Case {
    let payload = [COSMOS, b"\xf4\x90\x80\x80edited"].concat();
    let whole = frame(FIN | TEXT, &payload);
    let (first, second) = whole.split_at(whole.len() - payload.len() + after);
    Case::new(number).bytes(first.to_vec()).bytes(second.to_vec()).chopped(Chop::Frames).closes(1007)
}

#[tokio::test]
async fn every_sequence_that_is_utf8_is_taken_and_every_other_refused() {
    let some = ["hello$world", "hello\u{a2}world", "hello\u{20ac}world", "hello\u{24b62}world", "\u{3ba}\u{1f79}"];
    let first_of_each_length = [b"\xc2\x80".as_slice(), b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"];
    let mut cases: Vec<_> =
        (1..).zip(some).map(|(n, text): (u8, _)| Case::new(format!("6.5.{n}")).says(text)).collect();
    for length in 1..=COSMOS.len() {
        cases.push(judged(format!("6.6.{length}"), &COSMOS[..length]));
    }
    // UTF-8, but not as it stands in a JSON text.
    cases.push(Case::new("6.7.1").frame(FIN | TEXT, saying("\0")).bad_message());
    cases.extend((2..).zip(first_of_each_length).map(|(n, bytes): (u8, _)| judged(format!("6.7.{n}"), bytes)));
    for (section, list) in VALID {
        cases.extend((1..).zip(*list).map(|(n, bytes): (u8, _)| {
            assert!(std::str::from_utf8(bytes).is_ok(), "{bytes:x?}");
            judged(format!("6.{section}.{n}"), bytes)
        }));
    }

    play(cases).await;
    play(INVALID.iter().flat_map(|(section, first, list)| {
        (*first..).zip(*list).map(move |(n, bytes)| refused(format!("6.{section}.{n}"), bytes))
    }))
    .await;
    play(long_ones()).await;
}

/// The sequences of 6.12, 6.13 and 6.15 that are put together.
fn long_ones() -> Vec<Case> {
    let lonely = |bytes: std::ops::Range<u8>| bytes.flat_map(|byte| [byte, b' ']).collect::<Vec<u8>>();
    let starts = [0xc0..0xdf, 0xe0..0xef, 0xf0..0xf7, 0xf8..0xfb, 0xfc..0xfd];
    let mut cases = vec![refused("6.12.8".into(), &(0x80..0xbf).collect::<Vec<u8>>())];
    cases.extend((1..).zip(starts).map(|(n, bytes): (u8, _)| refused(format!("6.13.{n}"), &lonely(bytes))));
    cases.push(refused("6.15.1".into(), &LAST_BYTE_MISSING.concat()));
    cases
}

/// Comes back if it is UTF-8 and is refused if not.
fn judged(number: String, bytes: &[u8]) -> Case {
    match std::str::from_utf8(bytes) {
        Ok(text) => Case::new(number).says(text),
        Err(_) => refused(number, bytes),
    }
}

fn refused(number: String, bytes: &[u8]) -> Case {
    Case::new(number).frame(FIN | TEXT, bytes).closes(1007)
}
