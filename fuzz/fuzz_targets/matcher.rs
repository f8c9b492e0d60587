#![no_main]
#![expect(missing_docs, reason = "libFuzzer's macro makes the entry point")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyferry_fuzz::matcher::run(data));
