#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throughway_fuzz::ayame(bytes));
