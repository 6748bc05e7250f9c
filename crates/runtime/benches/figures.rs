//! Figures of this floor: `cargo bench -p windlass-runtime`.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Instant;

use windlass_runtime::memory::{Arena, Pool};
use windlass_runtime::monitor;
use windlass_runtime::random::Philox;
use windlass_runtime::stream::Stream;

fn main() {
    random();
    monitor();
    pool();
    streams();
}

/// Gigabytes per second of random numbers, beside a fill with a constant.
fn random() {
    let (mut random, mut words) = (Philox::new(1), vec![0u32; 1 << 20]);
    let mut floats = vec![0f32; 1 << 20];
    let bytes = (words.len() * 4) as f64;
    for threads in [1, rayon::current_num_threads()] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let report =
            |what: &str, seconds: f64| println!("{what}, {threads} threads: {:.2} GB/s", bytes / seconds / 1e9);
        pool.install(|| {
            report("fill with a constant", best(|| black_box(&mut words).fill(black_box(7))));
            report("words", best(|| random.fill_words(black_box(&mut words))));
            report("uniforms", best(|| random.fill_uniform(black_box(&mut floats))));
            report("normals", best(|| random.fill_normal(black_box(&mut floats))));
        });
    }
}

/// Nanoseconds of a span and of a counter, off and on.
fn monitor() {
    const COUNT: u32 = 10_000;
    let each = |seconds: f64| seconds * 1e9 / f64::from(COUNT);
    for on in [false, true] {
        if on {
            monitor::start(usize::MAX);
        }
        let spans = best(|| (0..COUNT).for_each(|_| drop(black_box(monitor::span("op", "figures")))));
        let counters = best(|| (0..COUNT).for_each(|n| monitor::counter("count", f64::from(black_box(n)))));
        println!(
            "monitor {}: {:.2} ns a span, {:.2} ns a counter",
            if on { "on" } else { "off" },
            each(spans),
            each(counters)
        );
    }
    black_box(monitor::stop());
}

/// Nanoseconds to take a buffer and give it back.
fn pool() {
    const COUNT: u32 = 10_000;
    let pool = Pool::new(1 << 30);
    let arena = Arena::reserve(&pool, "figures", 1 << 20).expect("memory");
    let take = best(|| (0..COUNT).for_each(|_| drop(black_box(pool.try_take("figures", 100_000)))));
    let cut = best(|| (0..COUNT).for_each(|_| drop(black_box(arena.take(0)))));
    let each = |seconds: f64| seconds * 1e9 / f64::from(COUNT);
    println!("pool: {:.0} ns a buffer; arena: {:.0} ns a buffer", each(take), each(cut));
}

/// Nanoseconds from submission to the end of empty work: many in a row, one at a time, and inline.
fn streams() {
    const COUNT: u32 = 1000;
    let empty = || Ok::<(), Infallible>(());
    let each = |seconds: f64| seconds * 1e9 / f64::from(COUNT);
    let (stream, inline) = (Stream::new("figures"), Stream::inline("figures"));
    let row = best(|| {
        (0..COUNT).for_each(|_| stream.submit("empty", empty));
        stream.synchronize().expect("nothing fails");
    });
    let single = best(|| {
        (0..COUNT).for_each(|_| {
            stream.submit("empty", empty);
            stream.synchronize().expect("nothing fails");
        });
    });
    let direct = best(|| (0..COUNT).for_each(|_| inline.submit("empty", empty)));
    println!(
        "stream: {:.0} ns in a row, {:.0} ns there and back, {:.0} ns inline",
        each(row),
        each(single),
        each(direct)
    );
}

/// Seconds of the fastest of 200 runs, which other programs did not disturb.
fn best(mut run: impl FnMut()) -> f64 {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..200).map(|_| time(&mut run)).fold(f64::INFINITY, f64::min)
}
