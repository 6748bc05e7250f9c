//! The memory of keys and values: how near its types are to f32, that it can be gone on from, and that decoding asks
//! nothing more of the system.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use windlass::load::{Options, cache_element, load};
use windlass::models::{Decoder, Wanted};
use windlass::ops::{Context, Recorder};
use windlass::sampling::{Generation, Sampler, Sampling, Settings};
use windlass::tensor::{Limits, TypedTensor};
use windlass::{Model, register_providers};

const TOKENS: [u32; 24] = [5, 17, 3, 99, 4, 8, 31, 7, 2, 64, 11, 12, 90, 41, 6, 1, 33, 28, 70, 9, 55, 21, 13, 47];

/// A decoder with heads of 64 values, of which q8_0 takes whole blocks.
fn decoder(folder: &Path) -> Decoder {
    register_providers();
    windlass::quickstart::make(folder).unwrap();
    let model = Model::open(PathBuf::from(folder), &Limits::default()).unwrap();
    load(&model, &Options { context: Some(128), ..Options::default() }).unwrap().decoder
}

/// Logits of all tokens, the first half at once and then one by one.
fn logits(cx: &Context, decoder: &Decoder, kv: &str) -> Vec<f32> {
    let mut cache = decoder.cache(64, cache_element(kv).unwrap()).unwrap();
    let mut all = Vec::new();
    let (first, rest) = TOKENS.split_at(12);
    for tokens in [first].into_iter().chain(rest.chunks(1)) {
        let logits = decoder.forward(cx, tokens, &mut cache, Wanted::All).unwrap().unwrap();
        all.extend(TypedTensor::<f32>::new(logits).unwrap().to_vec().unwrap());
    }
    all
}

/// The largest difference, in shares of the largest logit.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    let range = a.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / range
}

#[test]
fn packed_keys_and_values_are_near_those_in_f32() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = decoder(folder.path());
    let recorder = Recorder::new();
    let (exact, half, packed, specified) = Context::here(|cx| {
        let reference = Context::new(cx.session()).with_provider("reference");
        let recorded = Context::new(cx.session()).with_recorder(&recorder);
        let each = [logits(cx, &decoder, "f32"), logits(cx, &decoder, "f16"), logits(&recorded, &decoder, "q8_0")];
        let [exact, half, packed] = each;
        (exact, half, packed, logits(&reference, &decoder, "q8_0"))
    });
    assert!(apart(&exact, &half) < 1e-3, "f16: {}", apart(&exact, &half));
    // What 8 bits for a value cost: a fiftieth of the largest logit at most, and more than f16.
    let cost = apart(&exact, &packed);
    assert!(cost < 0.02 && cost > apart(&exact, &half), "q8_0: {cost}");
    assert!(apart(&specified, &packed) < 2e-3, "the kernel and the reference: {}", apart(&specified, &packed));
    let used = recorder.take();
    let of = |op: &str| used.iter().filter(|r| r.op == op).all(|r| r.provider == "simd");
    assert!(of("attention") && of("cache_write"), "a fallback stood in");
    let size = |kv: &str| decoder.cache_bytes(64, &cache_element(kv).unwrap()).unwrap();
    assert_eq!((size("f16") * 34, size("f32")), (size("q8_0") * 64, 2 * size("f16")));
}

#[test]
fn a_beginning_that_was_run_before_is_not_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = decoder(folder.path());
    let settings = Settings { tokens: 6, end: Vec::new() };
    let greedy = || Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }).unwrap();
    for kv in ["f16", "q8_0"] {
        let recorder = Recorder::new();
        let (fresh, again) = Context::here(|cx| {
            let cx = Context::new(cx.session()).with_recorder(&recorder);
            let new = || Generation::new(&decoder, decoder.cache(64, cache_element(kv).unwrap()).unwrap());
            let run = |generation: &mut Generation, prompt: &[u32]| {
                generation.run(&cx, prompt, &mut greedy(), &settings, &mut |_| Ok(true)).unwrap().tokens
            };
            let mut generation = new();
            run(&mut generation, &TOKENS[..20]);
            recorder.take();
            let other: Vec<u32> = TOKENS[..16].iter().copied().chain([3, 2, 1]).collect();
            let again = run(&mut generation, &other);
            // Three tokens of the prompt, then one at a time.
            let writes = recorder.take();
            let values = writes.iter().filter(|r| r.op == "embedding").count();
            assert_eq!(values, 6, "one batch of a prompt, five more tokens");
            (run(&mut new(), &other), again)
        });
        assert_eq!(fresh, again, "{kv}");
    }
}

#[test]
fn decoding_takes_no_more_memory_after_the_first_token() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = decoder(folder.path());
    for kv in ["f16", "q8_0"] {
        Context::here(|cx| {
            let mut cache = decoder.cache(64, cache_element(kv).unwrap()).unwrap();
            decoder.forward(cx, &TOKENS[..12], &mut cache, Wanted::Last).unwrap();
            decoder.forward(cx, &[1], &mut cache, Wanted::Last).unwrap();
            let pool = windlass::ops::pool();
            let before = pool.statistics();
            for token in &TOKENS {
                decoder.forward(cx, &[*token], &mut cache, Wanted::Last).unwrap();
            }
            let after = pool.statistics();
            let (taken, reused) = (after.taken - before.taken, after.reused - before.reused);
            assert!(taken > 100 && taken == reused, "{taken} buffers, {reused} of them from the pool");
            assert_eq!((after.reserved, after.peak), (before.reserved, before.peak));
        });
    }
}
