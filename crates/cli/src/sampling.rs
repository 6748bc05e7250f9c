//! Flags of every command that chooses tokens.

use windlass::sampling::Sampling;

/// How tokens are chosen.
#[derive(clap::Args, Clone)]
pub struct Choosing {
    /// 0 always takes the likeliest token; higher is more varied
    #[arg(long, env = "WINDLASS_TEMPERATURE", default_value_t = 0.8)]
    temperature: f32,
    /// Only so many of the likeliest tokens; 0: all
    #[arg(long, env = "WINDLASS_TOP_K", default_value_t = 40)]
    top_k: usize,
    /// Only the likeliest tokens that together have this probability
    #[arg(long, env = "WINDLASS_TOP_P", default_value_t = 0.95)]
    top_p: f32,
    /// Only tokens at least this many times as likely as the likeliest
    #[arg(long, env = "WINDLASS_MIN_P", default_value_t = 0.05)]
    min_p: f32,
    /// Above 1, tokens that were there become less likely
    #[arg(long, env = "WINDLASS_REPEAT_PENALTY", default_value_t = 1.0)]
    repeat_penalty: f32,
    /// The same seed gives the same text
    #[arg(long, env = "WINDLASS_SEED", default_value_t = 0)]
    seed: u64,
}

impl Choosing {
    /// As the library takes it.
    pub fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            seed: self.seed,
            ..Sampling::default()
        }
    }
}
