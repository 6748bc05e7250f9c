//! The memory of a conversation: keys and values of every layer.

use windlass_ops::zeros;
use windlass_tensor::{DType, Tensor};

use crate::Error;

/// Keys and values `[kv_heads, context, head_dim]` of each layer, for the tokens seen so far.
#[derive(Debug)]
pub struct Cache {
    pub(crate) layers: Vec<(Tensor, Tensor)>,
    /// Tokens that are in it.
    pub(crate) length: usize,
    context: usize,
}

impl Cache {
    pub(crate) fn new(
        layers: usize,
        heads: usize,
        context: usize,
        head_dim: usize,
        dtype: DType,
    ) -> Result<Cache, Error> {
        let one = || zeros(dtype, [heads, context, head_dim]);
        let layers = (0..layers).map(|_| Ok((one()?, one()?))).collect::<Result<_, Error>>()?;
        Ok(Cache { layers, length: 0, context })
    }

    /// Tokens that are in it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Tokens that it has room for.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Forgets all tokens after the first `length`.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        let bytes = |t: &Tensor| t.planes().iter().map(|p| p.len() as u64).sum::<u64>();
        self.layers.iter().map(|(keys, values)| bytes(keys) + bytes(values)).sum()
    }
}
