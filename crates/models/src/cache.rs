//! The memory of a conversation: keys and values of every layer.

use windlass_catalog::Hyper;
use windlass_ops::zeros_of;
use windlass_tensor::{Element, Tensor};

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
        element: &Element,
    ) -> Result<Cache, Error> {
        let one = || zeros_of(element, [heads, context, head_dim]);
        let layers = (0..layers).map(|_| Ok((one()?, one()?))).collect::<Result<_, Error>>()?;
        Ok(Cache { layers, length: 0, context })
    }

    /// Bytes of keys and values of such a cache.
    pub(crate) fn size(
        layers: usize,
        heads: usize,
        context: usize,
        head_dim: usize,
        element: &Element,
    ) -> Result<u64, Error> {
        let too_large = || windlass_tensor::Error::Overflow {
            what: "the number of bytes of the cache",
            shape: vec![layers, 2, heads, context, head_dim],
        };
        let rows = heads.checked_mul(context).ok_or_else(too_large)?;
        let one = match element {
            Element::Plain(dtype) => rows.checked_mul(head_dim * dtype.size()).ok_or_else(too_large)? as u64,
            Element::Packed(packing) => {
                let planes = packing.plane_bytes(&[rows, head_dim]);
                let refused = |why| windlass_tensor::Error::Argument(format!("{}: {why}", packing.name()));
                planes.map_err(refused)?.iter().sum()
            }
        };
        Ok(one.checked_mul(2 * layers as u64).ok_or_else(too_large)?)
    }

    /// Bytes of keys and values for `context` tokens of a model of these hyper-parameters.
    pub fn bytes_for(h: &Hyper, context: usize, element: &Element) -> Result<u64, Error> {
        Cache::size(h.layers(), h.kv_heads(), context, h.head_dim(), element)
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
