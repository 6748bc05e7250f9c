//! Milliseconds of ops, for `benches/ops.py`: `cargo run --release -p windlass-cpu --example ops -- [threads]`.
//!
//! Reads a name per line and answers with the milliseconds of one call, the best of several. `copy N M` reads N MiB and
//! writes M, `change N M` reads N MiB and changes M where they are: the yardsticks of what memory bounds. `dispatch` is a call of an op on one value. All outputs are in memory that
//! was used before, as in a model.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::sync::Mutex;
use std::time::Instant;

use windlass_ops::library::{Attention, Rope, attention, elementwise, linear, matmul, rms_norm, rope, softmax};
use windlass_ops::{Attributes, Context, Error};
use windlass_runtime::random::Philox;
use windlass_runtime::scheduler::{self, Session};
use windlass_tensor::{DType, Tensor};

/// Calls of which the best counts.
const CALLS: usize = 7;

/// Calls of an op on one value.
const DISPATCHES: usize = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(threads) = std::env::args().nth(1) {
        scheduler::set_threads(threads.parse()?)?;
    }
    windlass_cpu::register();
    let cases = Cases::new()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["copy", read, write] => copy(read.parse()?, write.parse()?),
            ["change", read, write] => change(read.parse()?, write.parse()?),
            ["dispatch"] => cases.dispatch()?,
            [name] => cases.time(name)?,
            _ => return Err(format!("what is {line:?}?").into()),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

struct Cases {
    /// `[2048, 2048]` and `[4096, 4096]`.
    square: Tensor,
    large: Tensor,
    weight: Tensor,
    rope: Rope,
    heads: Tensor,
    cache: [Tensor; 2],
    halves: [Tensor; 2],
    one: Tensor,
    /// What steps of optimizers change; made when they are first asked for.
    states: Mutex<HashMap<String, Vec<Tensor>>>,
}

fn normal(shape: &[usize]) -> Result<Tensor, Error> {
    let mut values = vec![0.0f32; shape.iter().product()];
    Philox::new(1).fill_normal(&mut values);
    Ok(Tensor::from_slice(&values, shape.to_vec())?)
}

impl Cases {
    fn new() -> Result<Self, Error> {
        let frequencies: Vec<f32> = (0..64).map(|i| 1e6f32.powf(-(i as f32) / 64.0)).collect();
        let rope = Rope {
            head_dim: 128,
            frequencies: Tensor::from_slice(&frequencies, [64])?,
            factor: 1.0,
            interleaved: false,
        };
        let cache = normal(&[16, 1024, 128])?;
        let half = Context::here(|cx| windlass_ops::library::cast(cx, &cache, DType::F16))?.reshape([8, 2048, 128])?;
        Ok(Cases {
            square: normal(&[2048, 2048])?,
            large: normal(&[4096, 4096])?,
            weight: normal(&[4096])?,
            rope,
            heads: normal(&[1024, 2048])?,
            cache: [cache.clone(), cache],
            halves: [half.clone(), half],
            one: normal(&[1])?,
            states: Mutex::default(),
        })
    }

    fn call(&self, cx: &Context, name: &str) -> Result<Tensor, Error> {
        let how = |start, causal| Attention { start, scale: 0.088, causal, window: 0, soft_cap: 0.0 };
        let (first, [keys, values], [half_keys, half_values]) = (self.heads.narrow(0, 0, 1), &self.cache, &self.halves);
        match name {
            "matmul" => matmul(cx, &self.square, &self.square),
            "linear" => linear(cx, &self.square, &self.square),
            "rms_norm" => rms_norm(cx, &self.large, &self.weight, 1e-6),
            "softmax" => softmax(cx, &self.large),
            "rope" => rope(cx, &self.heads, &self.rope, 0),
            "swiglu" => elementwise(cx, "swiglu", &[&self.large, &self.large]),
            "attention" => attention(cx, &self.heads, keys, values, &how(0, true)),
            "attention_512" => attention(cx, &self.heads.narrow(0, 0, 512)?, half_keys, half_values, &how(0, true)),
            "decode_64" => attention(cx, &first?, half_keys, half_values, &how(63, true)),
            "decode_544" => attention(cx, &first?, half_keys, half_values, &how(543, true)),
            "decode_2048" => attention(cx, &first?, half_keys, half_values, &how(2047, true)),
            _ if name.ends_with("_step") => self.step(cx, name),
            _ => Err(Error::Argument { op: "bench", message: format!("there is no case {name:?}") }),
        }
    }

    /// A step of an optimizer, in place.
    fn step(&self, cx: &Context, name: &str) -> Result<Tensor, Error> {
        let op = windlass_ops::op(name)?;
        let known = |name: &str| op.attributes.iter().any(|attribute| attribute.name == name);
        let how = Attributes::new().float("learning_rate", 1e-3);
        let how = if known("step") { how.int("step", 5) } else { how };
        let how = if known("momentum") { how.float("momentum", 0.9) } else { how };
        let mut states = self.states.lock().unwrap_or_else(|e| e.into_inner());
        if !states.contains_key(name) {
            states.insert(name.into(), cx.call(op, &[&self.large], &how)?);
        }
        if let Some(all) = states.get_mut(name) {
            cx.call_into(op, &[&self.large], &how, all)?;
        }
        Ok(self.one.clone())
    }

    fn time(&self, name: &str) -> Result<f64, Error> {
        Context::here(|cx| {
            let mut best = f64::INFINITY;
            for call in 0..CALLS + 1 {
                let start = Instant::now();
                black_box(self.call(cx, name)?);
                // The first call finds memory that was never used.
                best = if call > 0 { best.min(start.elapsed().as_secs_f64() * 1e3) } else { best };
            }
            Ok(best)
        })
    }

    fn dispatch(&self) -> Result<f64, Error> {
        Context::here(|cx| {
            let start = Instant::now();
            for _ in 0..DISPATCHES {
                black_box(elementwise(cx, "neg", &[&self.one])?);
            }
            Ok(start.elapsed().as_secs_f64() * 1e3 / DISPATCHES as f64)
        })
    }
}

/// Milliseconds of reading `read` MiB while writing `write` MiB, the best of several.
fn copy(read: usize, write: usize) -> f64 {
    let source = vec![1.0f32; read << 18];
    let mut target = vec![0.0f32; write << 18];
    let mut best = f64::INFINITY;
    for _ in 0..CALLS {
        let start = Instant::now();
        scheduler::team().enter(|session| copy_once(session, &source, &mut target));
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
        black_box(&target);
    }
    best
}

/// Milliseconds of reading `read` MiB of which `write` are changed where they are, the best of several.
fn change(read: usize, write: usize) -> f64 {
    const PIECES: usize = 1024;
    let source = vec![1.0f32; (read - write) << 18];
    let mut target = vec![0.0f32; write << 18];
    let (from, to) = (source.len() / PIECES, target.len() / PIECES);
    let mut best = f64::INFINITY;
    for _ in 0..CALLS {
        let start = Instant::now();
        let pieces: Vec<Mutex<&mut [f32]>> = target.chunks_mut(to).map(Mutex::new).collect();
        scheduler::team().enter(|session| {
            session.split(PIECES, 4, &|range| {
                for i in range {
                    let mut sums = [1.0f32; 64];
                    for part in source[i * from..][..from].as_chunks::<64>().0 {
                        sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
                    }
                    let mut piece = pieces[i].lock().unwrap_or_else(|e| e.into_inner());
                    piece.iter_mut().for_each(|v| *v += sums[0]);
                }
            });
        });
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    black_box(&target);
    best
}

/// Each piece of the target takes the sum of the pieces of the source that fall to it.
fn copy_once(session: &Session<'_>, source: &[f32], target: &mut [f32]) {
    const PIECE: usize = 4096;
    let pieces: Vec<std::sync::Mutex<&mut [f32]>> = target.chunks_mut(PIECE).map(std::sync::Mutex::new).collect();
    let sources = source.len() / (pieces.len() * PIECE).max(1);
    session.split(pieces.len(), 4, &|range| {
        for i in range {
            let mut piece = pieces[i].lock().unwrap_or_else(|e| e.into_inner());
            piece.copy_from_slice(&source[i * PIECE..][..PIECE]);
            for other in 1..sources {
                let from = &source[(other * pieces.len() + i) * PIECE..][..PIECE];
                piece.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
    });
}
