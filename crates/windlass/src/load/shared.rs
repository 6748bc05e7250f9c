//! Weights in memory that processes share: who comes first fills it, the others find it.

use windlass_tensor::Storage;

use super::budget::Budget;
use super::{Options, Placed};
use crate::convert::{Image, Watch, fingerprint};
use crate::{Error, Model, Result};

/// Attaches the segment of these files and this scheme.
#[cfg(unix)]
pub fn place(model: &Model, options: &Options, budget: &Budget, watch: &Watch) -> Result<Placed> {
    use windlass_runtime::memory::Segments;

    let image = Image::plan(model, options.scheme.as_deref())?;
    let threads = budget.workers(&image, options)?;
    let name = format!("weights-{}", fingerprint(model, options.scheme.as_deref()));
    let mut failure = None;
    let fill = |target: &mut [u8]| {
        image.fill(target, threads, watch).map_err(|error| {
            let text = windlass_tensor::Error::Argument(error.to_string());
            failure = Some(error);
            text
        })
    };
    let storage: Storage = match Segments::of_process().attach(&name, image.bytes() as usize, fill) {
        Ok(storage) => storage,
        Err(error) => return Err(failure.unwrap_or_else(|| no_room(error))),
    };
    Ok(Placed::new(image.tensors(&storage)?, image.convention, image.hyper()?))
}

/// Shared memory is a file system of its own, often half of the machine's memory.
#[cfg(unix)]
fn no_room(error: windlass_tensor::Error) -> Error {
    let full = matches!(&error, windlass_tensor::Error::Io { source, .. }
        if source.kind() == std::io::ErrorKind::StorageFull);
    let error = Error::from(error);
    if full {
        let error = Error { code: crate::Code::Memory, ..error };
        return error.help("there is no room for the weights in shared memory: use --load mapped");
    }
    error
}

#[cfg(not(unix))]
pub fn place(_: &Model, _: &Options, _: &Budget, _: &Watch) -> Result<Placed> {
    Err(Error::usage("--load shared is for systems with POSIX shared memory").help("use --load mapped"))
}
