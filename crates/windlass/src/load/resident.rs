//! Weights in memory of this process, as they are or quantized on the way.

use windlass_runtime::{memory::Pool, system};
use windlass_tensor::Storage;

use super::budget::Budget;
use super::{Options, Placed};
use crate::convert::{Image, Watch};
use crate::{Model, Result};

/// Copies or quantizes all tensors into one block, and gives back the pages that the system kept of the files.
pub fn place(model: &Model, options: &Options, budget: &Budget, watch: &Watch) -> Result<Placed> {
    let image = Image::plan(model, options.scheme.as_deref())?;
    let threads = budget.workers(&image, options)?;
    // A pool of its own, so that the block's size is not rounded up to what others could use.
    let mut block = Pool::new(u64::MAX).try_take("weights", image.bytes() as usize)?;
    image.fill(&mut block, threads, watch)?;
    model.source.parts().iter().for_each(|part| system::will_not_read(part.file()));
    Ok(Placed::new(image.tensors(&Storage::new(block))?, image.convention, image.hyper()?))
}
