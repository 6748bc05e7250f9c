//! Speed of linear layers: `cargo run --release --example linear -- [scheme ...]`.
//!
//! The shapes are those of Qwen3-0.6B. Bandwidth is that of a set of weights too large for caches, next to what reading
//! memory reaches in the same run.

use std::hint::black_box;
use std::time::Instant;

use windlass_cpu::linear::{Activations, Form, Linear};
use windlass_quant::{Importance, Packing, scheme};
use windlass_runtime::scheduler::{Session, Team};
use windlass_tensor::{DType, Element, PackedLayout};

/// Output and input features, and how often a layer has them.
const SHAPES: [(usize, usize, usize); 5] =
    [(2048, 1024, 1), (1024, 1024, 2), (1024, 2048, 1), (3072, 1024, 2), (1024, 3072, 1)];

const PROMPT: usize = 512;

/// Bytes of weights that are cycled through when bandwidth is measured.
const SET: usize = 280 << 20;

/// Bytes that are read at once when memory is measured, about a layer.
const PART: usize = 10 << 20;

const CYCLES: usize = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        names = ["q4_0", "q8_0", "q4_k", "q6_k"].map(String::from).to_vec();
    }
    let teams = [Team::new(1), Team::new(2)];
    let memory: Vec<f64> = teams.iter().map(|team| team.enter(read_bandwidth)).collect();
    println!("reading memory: {:.1} GB/s with 1 thread, {:.1} with 2", memory[0], memory[1]);
    let prepared: Vec<String> = teams.iter().map(|team| team.enter(prepare)).collect::<Result<_, _>>()?;
    println!("512 rows as bytes per 32, per 256, as floats, GB/s: {}", prepared.join("; "));
    println!("{:10} {:>27} {:>10} {:>12}", "", "one row, GB/s (share)", "in cache", "512 rows, GOP/s");
    for name in names {
        let weights = Layer::new(&name)?;
        let mut cells = Vec::new();
        for (team, memory) in teams.iter().zip(&memory) {
            let speed = team.enter(|session| weights.decode(session))?;
            cells.push(format!("{speed:5.1} ({:3.0} %)", 100.0 * speed / memory));
        }
        cells.push(format!("{:5.1}", teams[0].enter(|session| weights.cached(session))?));
        for team in &teams {
            cells.push(format!("{:10.0}", team.enter(|session| weights.prompt(session))?));
        }
        println!("{name:10} {}", cells.join(" "));
    }
    Ok(())
}

/// The layers of a model.
struct Layer {
    element: Element,
    /// Codes of a layer: one string for each shape.
    planes: Vec<Vec<Vec<u8>>>,
    layers: usize,
}

impl Layer {
    fn new(name: &str) -> Result<Layer, Box<dyn std::error::Error>> {
        let element = match DType::from_name(name) {
            Some(dtype) => Element::Plain(dtype),
            None => Packing { scheme: scheme(name)?, float: DType::BF16 }.element(),
        };
        let mut layer = Layer { element, planes: Vec::new(), layers: 1 };
        let first = layer.make()?;
        let bytes: usize = first.iter().flatten().map(Vec::len).sum();
        layer.layers = SET.div_ceil(bytes);
        layer.planes = (0..layer.layers).flat_map(|_| first.clone()).collect();
        Ok(layer)
    }

    fn make(&self) -> Result<Vec<Vec<Vec<u8>>>, Box<dyn std::error::Error>> {
        let mut seed = 1u64;
        let mut made = Vec::new();
        for (rows, columns, count) in SHAPES {
            for _ in 0..count {
                let values: Vec<f32> = (0..rows * columns).map(|_| random(&mut seed) * 0.05).collect();
                made.push(match &self.element {
                    Element::Plain(dtype) => {
                        let mut bytes = vec![0; values.len() * dtype.size()];
                        windlass_quant::float::from_f32(*dtype, &values, &mut bytes)?;
                        vec![bytes]
                    }
                    Element::Packed(layout) => {
                        let packing: &Packing = layout.as_any().downcast_ref().ok_or("not a scheme")?;
                        let sizes = packing.plane_bytes(&[rows, columns])?;
                        let mut planes: Vec<Vec<u8>> = sizes.iter().map(|n| vec![0; *n as usize]).collect();
                        let mut outer: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
                        if packing.scheme.can_encode() {
                            let even = vec![1.0; columns];
                            let needed = packing.scheme.importance() == Importance::Required;
                            let tally = packing.scheme.tally(&values, columns, packing.float);
                            packing.scheme.begin(&tally, &mut outer);
                            let importance = needed.then_some(&even[..]);
                            packing.scheme.encode(&values, columns, importance, packing.float, &mut outer)?;
                        }
                        planes
                    }
                });
            }
        }
        Ok(made)
    }

    /// The matrices of all layers, with their input features.
    fn linears(&self) -> Result<Vec<Linear<'_>>, windlass_cpu::Error> {
        let shapes = SHAPES.iter().flat_map(|(rows, columns, count)| std::iter::repeat_n((*rows, *columns), *count));
        let shapes: Vec<_> = shapes.collect();
        let planes = self.planes.iter().zip(shapes.iter().cycle());
        planes
            .map(|(planes, (rows, columns))| {
                let planes: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
                Linear::new(&self.element, &planes, *rows, *columns)
            })
            .collect()
    }

    /// Bytes of weights per nanosecond for one row of activations. All layers pass before one comes again, so that none is
    /// in a cache.
    fn decode(&self, session: &Session<'_>) -> Result<f64, windlass_cpu::Error> {
        let linears = self.linears()?;
        let bytes: usize = self.planes.iter().flatten().map(Vec::len).sum();
        let mut y = vec![0.0; 4096];
        let x = vec![0.5; 4096];
        let seconds = best_of_parts(CYCLES, self.layers, |layer| {
            for linear in &linears[layer * 7..][..7] {
                let x = Activations::new(linear.form(), &x[..linear.columns()], 1, linear.columns(), session)?;
                linear.apply(&x, &mut y[..linear.rows()], session)?;
            }
            Ok::<(), windlass_cpu::Error>(())
        })?;
        Ok(bytes as f64 / seconds / 1e9)
    }

    /// As [`Layer::decode`] for one matrix that stays in a cache: what the kernel could do with faster memory.
    fn cached(&self, session: &Session<'_>) -> Result<f64, windlass_cpu::Error> {
        let linear = &self.linears()?[1];
        let bytes: usize = self.planes[1].iter().map(Vec::len).sum();
        let mut y = vec![0.0; linear.rows()];
        let x = vec![0.5; linear.columns()];
        let x = Activations::new(linear.form(), &x, 1, linear.columns(), session)?;
        let seconds = best_of_parts(20 * CYCLES, 1, |_| linear.apply(&x, &mut y, session))?;
        Ok(bytes as f64 / seconds / 1e9)
    }

    /// Operations per nanosecond for a prompt, activations prepared once.
    fn prompt(&self, session: &Session<'_>) -> Result<f64, windlass_cpu::Error> {
        let linears = &self.linears()?[..7];
        let mut seed = 3;
        let mut operations = 0.0;
        let mut seconds = 0.0;
        let mut y = vec![0.0; PROMPT * 4096];
        for linear in linears {
            let x: Vec<f32> = (0..PROMPT * linear.columns()).map(|_| random(&mut seed)).collect();
            let x = Activations::new(linear.form(), &x, PROMPT, linear.columns(), session)?;
            let y = &mut y[..PROMPT * linear.rows()];
            seconds += best_of_parts(CYCLES, 1, |_| linear.apply(&x, y, session))?;
            operations += 2.0 * (PROMPT * linear.rows() * linear.columns()) as f64;
        }
        Ok(operations / seconds / 1e9)
    }
}

/// Seconds for all parts, each at its best of many cycles: other programs disturb a part now and then.
fn best_of_parts<E>(cycles: usize, parts: usize, mut work: impl FnMut(usize) -> Result<(), E>) -> Result<f64, E> {
    let mut best = vec![f64::INFINITY; parts];
    for _ in 0..cycles {
        for (part, best) in best.iter_mut().enumerate() {
            let start = Instant::now();
            work(part)?;
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(best.iter().sum())
}

/// Bytes of activations per nanosecond that are made ready in each form.
fn prepare(session: &Session<'_>) -> Result<String, windlass_cpu::Error> {
    let mut seed = 3;
    let x: Vec<f32> = (0..PROMPT * 3072).map(|_| random(&mut seed)).collect();
    let mut cells = Vec::new();
    for form in [Form::Bytes32, Form::Bytes256, Form::Floats] {
        let seconds = best_of_parts(CYCLES, 1, |_| {
            black_box(Activations::new(form, &x, PROMPT, 3072, session)?);
            Ok::<(), windlass_cpu::Error>(())
        })?;
        cells.push(format!("{:.1}", size_of_val(&x[..]) as f64 / seconds / 1e9));
    }
    Ok(cells.join(", "))
}

/// Bytes per nanosecond that reading memory reaches.
fn read_bandwidth(session: &Session<'_>) -> f64 {
    let memory = vec![1u64; SET / 8];
    let parts = SET / PART;
    let seconds = best_of_parts(CYCLES, parts, |part| {
        let memory = &memory[part * (PART / 8)..][..PART / 8];
        session.balance(memory.len(), 16 << 10, &|range| {
            let mut sums = [0u64; 32];
            for words in memory[range].as_chunks::<32>().0 {
                for (sum, word) in sums.iter_mut().zip(words) {
                    *sum ^= word;
                }
            }
            black_box(sums);
        });
        Ok::<(), ()>(())
    });
    SET as f64 / seconds.unwrap_or(f64::INFINITY) / 1e9
}

/// Uniform in -1 to 1.
fn random(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}
