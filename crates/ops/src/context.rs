//! Where ops are called: threads, routes, and who is told.

use std::sync::OnceLock;
use std::time::Instant;

use windlass_runtime::memory::Pool;
use windlass_runtime::monitor;
use windlass_runtime::scheduler::{self, Session};
use windlass_tensor::{DType, Element, Storage, Tensor, storage::HostBuffer};

use crate::op::{Inquiry, OutputSpec};
use crate::route::{self, Candidate, Question};
use crate::{Args, Attributes, Error, Op, Receipt, Recorder};

/// What a series of calls has in common.
pub struct Context<'a, 's> {
    session: &'a Session<'s>,
    /// The one provider to use, whatever routes say.
    provider: Option<&'static str>,
    recorder: Option<&'a Recorder>,
    watch: Option<&'a dyn Fn(&Call)>,
}

/// A call that was done, with its results.
pub struct Call<'c> {
    pub op: &'static Op,
    pub inputs: &'c [&'c Tensor],
    pub outputs: &'c [Tensor],
}

impl<'a, 's> Context<'a, 's> {
    /// Calls that run on the threads of `session`.
    pub fn new(session: &'a Session<'s>) -> Self {
        Self { session, provider: None, recorder: None, watch: None }
    }

    /// Wakes the process's team of threads for the calls of `work`.
    pub fn here<R>(work: impl FnOnce(&Context) -> R) -> R {
        scheduler::team().enter(|session| work(&Context::new(session)))
    }

    /// The same, with one provider for every op.
    pub fn with_provider(self, provider: &'static str) -> Self {
        Self { provider: Some(provider), ..self }
    }

    /// The same, with a receipt for every call.
    pub fn with_recorder(self, recorder: &'a Recorder) -> Self {
        Self { recorder: Some(recorder), ..self }
    }

    /// The same; `watch` sees every call after it was done.
    pub fn with_watch(self, watch: &'a dyn Fn(&Call)) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// Another one with the same threads and provider, which nobody is told of.
    pub fn again(&self) -> Self {
        Self { session: self.session, provider: self.provider, recorder: None, watch: None }
    }

    /// The threads.
    pub fn session(&self) -> &'a Session<'s> {
        self.session
    }

    /// Calls an op; its outputs are new tensors.
    pub fn call(&self, op: &'static Op, inputs: &[&Tensor], attributes: &Attributes) -> Result<Vec<Tensor>, Error> {
        let inquiry = Inquiry { op, inputs, attributes };
        inquiry.check()?;
        let specs = (op.outputs)(&inquiry)?;
        let mut outputs = specs.iter().map(allocate).collect::<Result<Vec<_>, Error>>()?;
        self.run(&inquiry, &mut outputs)?;
        Ok(outputs)
    }

    /// Calls an op with one output.
    pub fn one(&self, op: &'static Op, inputs: &[&Tensor], attributes: &Attributes) -> Result<Tensor, Error> {
        let mut outputs = self.call(op, inputs, attributes)?;
        match (outputs.pop(), outputs.is_empty()) {
            (Some(output), true) => Ok(output),
            _ => Err(Error::Argument { op: op.name, message: "does not have one output".into() }),
        }
    }

    /// Calls an op that writes into tensors that are there. They must be of the types and shapes that its rule gives,
    /// contiguous, and held by nobody else.
    pub fn call_into(
        &self,
        op: &'static Op,
        inputs: &[&Tensor],
        attributes: &Attributes,
        outputs: &mut [Tensor],
    ) -> Result<(), Error> {
        let inquiry = Inquiry { op, inputs, attributes };
        inquiry.check()?;
        let specs = (op.outputs)(&inquiry)?;
        if specs.len() != outputs.len() || !specs.iter().zip(&*outputs).all(|(spec, output)| spec.is(output)) {
            let found: Vec<String> = outputs.iter().map(|t| format!("{t:?}")).collect();
            return inquiry.fail(format!("gives {specs:?}, the outputs are {}", found.join(", ")));
        }
        self.run(&inquiry, outputs)
    }

    fn run(&self, inquiry: &Inquiry, outputs: &mut [Tensor]) -> Result<(), Error> {
        let question = Question::of(inquiry, outputs);
        let (candidate, fallback) = route::choose(inquiry, &question, self.provider)?;
        let start = self.recorder.map(|_| Instant::now());
        let mut span = monitor::span(inquiry.op.name, "op");
        let mut args = Args {
            op: inquiry.op,
            inputs: inquiry.inputs,
            attributes: inquiry.attributes,
            outputs,
            session: self.session,
        };
        (candidate.run)(&mut args)?;
        if span.recorded() {
            let dtype = question.dtype.to_lowercase();
            span.set("provider", candidate.provider);
            span.set("dtype", dtype);
            span.set("values", question.values);
            span.set("bytes", moved(inquiry, args.outputs));
            span.set("route", candidate.source.to_string());
        }
        drop(span);
        if let Some((recorder, start)) = self.recorder.zip(start) {
            recorder.add(receipt(inquiry, &question, &candidate, fallback, args.outputs, start));
        }
        if let Some(watch) = self.watch {
            watch(&Call { op: inquiry.op, inputs: inquiry.inputs, outputs: args.outputs });
        }
        Ok(())
    }
}

fn receipt(
    inquiry: &Inquiry,
    question: &Question,
    candidate: &Candidate,
    fallback: Option<String>,
    outputs: &[Tensor],
    start: Instant,
) -> Receipt {
    Receipt {
        op: inquiry.op.name,
        provider: candidate.provider,
        device: question.device.to_string(),
        dtype: question.dtype.to_lowercase(),
        values: question.values,
        bytes: moved(inquiry, outputs),
        elapsed: start.elapsed(),
        source: candidate.source.to_string(),
        fallback,
    }
}

/// Bytes of all inputs and outputs.
fn moved(inquiry: &Inquiry, outputs: &[Tensor]) -> u64 {
    let bytes = |tensor: &Tensor| -> u64 { tensor.planes().iter().map(|plane| plane.len() as u64).sum() };
    inquiry.inputs.iter().map(|t| bytes(t)).sum::<u64>() + outputs.iter().map(bytes).sum::<u64>()
}

fn allocate(spec: &OutputSpec) -> Result<Tensor, Error> {
    if spec.zeroed || spec.scheme.is_some() {
        return zeros_of(&spec.element(), spec.shape.clone());
    }
    let bytes = windlass_tensor::Shape::new(spec.shape.clone())?.bytes(spec.dtype.size())?;
    Ok(Tensor::new(Storage::new(pool().try_take("ops", bytes)?), spec.dtype, spec.shape.clone())?)
}

/// The memory that outputs of ops come from, and go back to when nobody holds them any more.
pub fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::new(u64::MAX))
}

/// A tensor of zeros in host memory.
pub fn zeros(dtype: DType, shape: impl Into<Vec<usize>>) -> Result<Tensor, Error> {
    let shape = windlass_tensor::Shape::new(shape)?;
    let bytes = shape.bytes(dtype.size())?;
    Ok(Tensor::new(Storage::new(HostBuffer::zeroed(bytes)?), dtype, shape.dims().to_vec())?)
}

/// As [`zeros`], of plain values or of a packing whose bytes are all zero.
pub fn zeros_of(element: &Element, shape: impl Into<Vec<usize>>) -> Result<Tensor, Error> {
    let packing = match element {
        Element::Plain(dtype) => return zeros(*dtype, shape),
        Element::Packed(packing) => packing,
    };
    let shape = shape.into();
    let bytes = packing.plane_bytes(&shape);
    let bytes = bytes.map_err(|why| windlass_tensor::Error::Argument(format!("{}: {why}", packing.name())))?;
    let plane = |bytes: u64| Ok(Storage::new(HostBuffer::zeroed(usize::try_from(bytes).unwrap_or(usize::MAX))?));
    Ok(Tensor::packed(packing.clone(), shape, bytes.into_iter().map(plane).collect::<Result<_, Error>>()?)?)
}
