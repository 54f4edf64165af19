//! The fuzz targets on the stable toolchain: every committed input, then so many mutations of them, always the same.
//!
//! With cargo-fuzz and a nightly toolchain, `tests/fuzz/run` goes on from the same inputs with coverage as its guide.

use self::random::Random;

mod random;
#[expect(unreachable_pub, reason = "it is the root of the fuzzing crate too")]
mod targets;

/// What a corpus may become by mutation, in bytes.
const MOST: usize = 4096;

#[test]
fn decoders_take_any_bytes() {
    fuzz("decoders", targets::decoders, 50_000);
}

#[test]
fn no_request_of_a_stranger_breaks_the_control_plane_or_gets_much() {
    fuzz("stranger", targets::stranger, 4000);
}

#[test]
fn no_signed_requests_break_the_control_plane() {
    fuzz("member", targets::member, 3000);
}

#[test]
fn any_first_bytes_are_told_by_the_table_and_read_again() {
    fuzz("first_bytes", targets::first_bytes, 2000);
}

#[test]
fn any_header_of_a_load_balancer_reads_the_same_in_pieces() {
    fuzz("proxy", targets::proxy, 50_000);
}

#[test]
fn a_stream_gives_the_same_messages_whatever_the_parts_it_comes_in() {
    fuzz("stream", targets::stream, 20_000);
}

#[test]
fn any_frames_get_replies_in_json_at_most() {
    fuzz("frames", targets::frames, 1500);
}

#[test]
fn any_frames_of_a_peerjs_client_get_replies_in_json_at_most() {
    fuzz("peerjs", targets::peerjs, 3000);
}

#[test]
fn no_text_is_a_token_that_nobody_signed() {
    fuzz("token", targets::token, 50_000);
}

#[test]
fn any_frames_about_topics_get_json_at_most() {
    fuzz("pubsub", targets::pubsub, 1500);
}

#[test]
fn any_frames_of_ayame_get_json_at_most() {
    fuzz("ayame", targets::ayame, 1500);
}

#[test]
fn any_payload_of_engine_io_gets_packets_of_text_at_most() {
    fuzz("socketio", targets::socketio, 1500);
}

#[test]
fn any_bytes_end_a_websocket_at_worst() {
    fuzz("websocket", targets::websocket, 3000);
}

#[test]
fn any_datagram_leaves_the_media_thread_answering() {
    fuzz("media", targets::media, 3000);
}

/// Replays the corpus of `name`, then mutates it for so many rounds. A panic prints the input that it is due to.
fn fuzz(name: &str, target: fn(&[u8]), rounds: usize) {
    let corpus = corpus(name);
    assert!(corpus.len() > 5, "{name}: the corpus is missing");
    let mut random = Random::new(name.len() as u64);
    for input in &corpus {
        attempt(name, target, input);
    }
    for _ in 0..rounds {
        let mut input = random.one_of(&corpus).clone();
        for _ in 0..=random.below(4) {
            random.mutate(&mut input, &corpus);
            input.truncate(MOST);
        }
        attempt(name, target, &input);
    }
}

fn attempt(name: &str, target: fn(&[u8]), input: &[u8]) {
    if std::panic::catch_unwind(|| target(input)).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{name} fails on this input, a new line for tests/fuzz/corpus/{name}.hex:\n{hex}");
    }
}

/// The lines of `corpus/NAME.hex`: bytes in hexadecimal, and comments behind `#`.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/tests/fuzz/corpus/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split('#').next().unwrap().trim()).map(bytes).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2) && hex.is_ascii(), "{hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
