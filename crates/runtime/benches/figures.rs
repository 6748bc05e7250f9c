//! Figures of this floor: `cargo bench -p windlass-runtime`.

use std::hint::black_box;
use std::time::Instant;

use windlass_runtime::monitor;
use windlass_runtime::random::Philox;

fn main() {
    random();
    monitor();
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

/// Seconds of the fastest of 200 runs, which other programs did not disturb.
fn best(mut run: impl FnMut()) -> f64 {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..200).map(|_| time(&mut run)).fold(f64::INFINITY, f64::min)
}
