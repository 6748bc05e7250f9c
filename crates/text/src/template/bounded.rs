//! Bounds on the memory and time of a template's values.
//!
//! The engine counts steps, but one step may double a text: forty of them fill any memory. So the steps that make or walk values are
//! replaced, in the compiled program, by calls of functions that measure first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Object, Tuple, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, context};
use windlass_tensor::Limits;

/// Bytes that text outside of expressions may fill in all.
pub(super) const TEXT_BYTES: u64 = 1 << 30;
/// Lists within lists.
const DEPTH: usize = 48;
/// What an item of a list weighs beside its text.
const ITEM_BYTES: u64 = 32;
/// How many times the size of the largest value all steps together may touch.
const WORK: u64 = 32;
/// The largest number that makes things longer: widths, counts.
const COUNT: i64 = 10_000;

/// What one run has used.
pub(super) struct Meter {
    value_bytes: u64,
    work: AtomicU64,
    emitted: AtomicU64,
}

fn too_much(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{what}; raise the limits if you trust this template"))
}

impl Meter {
    pub(super) fn new(limits: &Limits) -> Self {
        Meter { value_bytes: limits.template_output_bytes as u64, work: AtomicU64::new(0), emitted: AtomicU64::new(0) }
    }

    /// Counts values that are about to be read or were just made.
    pub(super) fn charge(&self, values: &[&Value]) -> Result<u64, Error> {
        let mut left = self.value_bytes;
        values.iter().try_for_each(|value| weigh(value, &mut left, DEPTH))?;
        let size = self.value_bytes - left;
        self.work(size + ITEM_BYTES)?;
        Ok(size)
    }

    fn work(&self, bytes: u64) -> Result<(), Error> {
        if self.work.fetch_add(bytes, Ordering::Relaxed) > WORK * self.value_bytes {
            return Err(too_much("the template moves too much memory"));
        }
        Ok(())
    }

    /// Refuses a result of `bytes` before it is made.
    fn room(&self, bytes: u64) -> Result<(), Error> {
        if bytes > self.value_bytes { Err(too_much("a value of the template is too large")) } else { self.work(bytes) }
    }

    /// Counts what is written to the output or into a captured block.
    pub(super) fn emit(&self, value: &Value) -> Result<(), Error> {
        let size = self.charge(&[value])?;
        if self.emitted.fetch_add(size, Ordering::Relaxed) > 2 * self.value_bytes {
            return Err(too_much("the template writes too much"));
        }
        Ok(())
    }

    /// Checks the finished text.
    pub(super) fn output(&self, bytes: usize) -> Result<(), Error> {
        if bytes as u64 > self.value_bytes { Err(too_much("the template writes too much")) } else { Ok(()) }
    }

    /// Refuses calls of filters and methods whose result is much larger than what they are given. `args[0]` is the value itself.
    pub(super) fn guard(&self, name: &str, args: &[Value]) -> Result<(), Error> {
        let size = self.charge(&args.iter().collect::<Vec<_>>())?;
        let text = |at: usize| args.get(at).and_then(Value::as_str).unwrap_or("");
        let counts = || args.iter().skip(1).flat_map(numbers).any(|n| !(-COUNT..=COUNT).contains(&n));
        match name {
            "replace" => {
                let times = if text(1).is_empty() { text(0).len() + 1 } else { text(0).matches(text(1)).count() };
                self.room(size.saturating_add((times as u64).saturating_mul(text(2).len() as u64)))
            }
            "join" => {
                let (items, separator) =
                    if text(0).is_empty() { (&args[0], text(1)) } else { (args.get(1).unwrap_or(&args[0]), text(0)) };
                self.room(size.saturating_add((items.len().unwrap_or(0) as u64).saturating_mul(separator.len() as u64)))
            }
            "indent" if counts() => Err(too_much("an indentation is too wide")),
            "indent" => self.room(size.saturating_add((text(0).lines().count() as u64).saturating_mul(COUNT as u64))),
            "batch" | "slice" | "round" | "tojson" if counts() => Err(too_much("a count is too large")),
            "format"
                if text(0).as_bytes().windows(5).any(|w| w.iter().all(u8::is_ascii_digit)) || text(0).contains('*') =>
            {
                Err(too_much("a field is too wide"))
            }
            "format" if text(0).contains("{:{") => Err(too_much("widths that are computed are not supported")),
            _ => Ok(()),
        }
    }
}

/// The integers of an argument, named arguments among them.
fn numbers(value: &Value) -> Vec<i64> {
    let inner = |key: Value| value.get_item(&key).ok().and_then(|v| v.as_i64());
    match value.kind() {
        ValueKind::Number => vec![value.as_i64().unwrap_or(i64::MAX)],
        ValueKind::Map => value.try_iter().into_iter().flatten().take(16).filter_map(inner).collect(),
        _ => Vec::new(),
    }
}

/// Takes the size of `value` with all that is in it from `left`; what is there twice counts twice, as it does when it is written.
fn weigh(value: &Value, left: &mut u64, depth: usize) -> Result<(), Error> {
    let own = ITEM_BYTES + value.as_str().map_or(0, str::len) as u64;
    *left = left.checked_sub(own).ok_or_else(|| too_much("a value of the template is too large"))?;
    let kind = value.kind();
    // A sequence without length is made while it is read; it can be read only once, so it is counted when it has become a list.
    if !matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) || value.len().is_none() {
        return Ok(());
    }
    let deeper = depth.checked_sub(1).ok_or_else(|| too_much("values are nested too deeply"))?;
    for item in value.try_iter()? {
        if kind == ValueKind::Map {
            weigh(&value.get_item(&item)?, left, deeper)?;
        }
        weigh(&item, left, deeper)?;
    }
    Ok(())
}

/// A filter, test or function whose calls go through the meter, and the name of its stand-in: with a space, so no template can say it.
pub(super) struct Name {
    kind: &'static str,
    name: String,
    stand_in: String,
}

/// The filters, tests and constructors that occur in a program.
pub(super) fn names(program: &minijinja::machinery::CompiledTemplate) -> Vec<Name> {
    let mut found = BTreeSet::new();
    for instructions in std::iter::once(&program.instructions).chain(program.blocks.values()) {
        for instruction in (0..).map_while(|i| instructions.get(i)) {
            match instruction {
                Instruction::ApplyFilter(name, ..) => found.insert(("filter", name.to_string())),
                Instruction::PerformTest(name, ..) => found.insert(("test", name.to_string())),
                Instruction::CallFunction(name @ ("namespace" | "dict"), _) => found.insert(("call", name.to_string())),
                _ => false,
            };
        }
    }
    found.into_iter().map(|(kind, name)| Name { kind, stand_in: format!("{kind} {name}"), name }).collect()
}

/// Puts the calls in the place of the steps. Each takes the same values from the stack and leaves one, so no jump changes.
pub(super) fn rewrite<'a>(instructions: &mut Instructions<'a>, names: &'a [Name]) -> Result<(), Error> {
    let stand_in = |kind: &str, name: &str| {
        names.iter().find(|n| n.kind == kind && n.name == name).map_or("", |n| n.stand_in.as_str())
    };
    let mut at = 0;
    while let Some(instruction) = instructions.get_mut(at) {
        at += 1;
        use Instruction as I;
        let (name, count) = match instruction {
            I::StringConcat => ("step concat", Some(2)),
            I::Add => ("step add", Some(2)),
            I::Mul => ("step multiply", Some(2)),
            I::Slice => ("step slice", Some(4)),
            I::Eq => ("step ==", Some(2)),
            I::Ne => ("step !=", Some(2)),
            I::Lt => ("step <", Some(2)),
            I::Lte => ("step <=", Some(2)),
            I::Gt => ("step >", Some(2)),
            I::Gte => ("step >=", Some(2)),
            I::In => ("step in", Some(2)),
            I::BuildList(count) => ("step list", narrow(*count)?),
            I::BuildTuple(count) => ("step tuple", narrow(*count)?),
            I::BuildMap(pairs) => ("step map", narrow(Some(*pairs * 2))?),
            I::ApplyFilter(name, count, _) => (stand_in("filter", name), *count),
            I::PerformTest(name, count, _) => (stand_in("test", name), *count),
            I::CallFunction(name @ ("namespace" | "dict"), count) => (stand_in("call", name), *count),
            I::CompareAndPreserve(_) => {
                return Err(Error::new(
                    ErrorKind::SyntaxError,
                    "comparisons in a row are not supported; join them with `and`",
                ));
            }
            _ => continue,
        };
        *instruction = I::CallFunction(name, count);
    }
    Ok(())
}

fn narrow(count: Option<usize>) -> Result<Option<u16>, Error> {
    count.map(u16::try_from).transpose().map_err(|_| Error::new(ErrorKind::SyntaxError, "a list has too many items"))
}

type Call = dyn Fn(&mut State, &[Value]) -> Result<Value, Error> + Send + Sync;

/// A function that takes its arguments as they lie on the stack, named ones among them.
struct Callable(Box<Call>);

impl std::fmt::Debug for Callable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("function")
    }
}

impl Object for Callable {
    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        (self.0)(state, args)
    }
}

/// Adds the functions that the rewritten program calls.
pub(super) fn register(env: &mut Environment<'static>, names: &[Name], meter: &Arc<Meter>) {
    for Name { kind, name, stand_in } in names {
        let (kind, name, meter) = (*kind, name.clone(), Arc::clone(meter));
        let call = move |state: &mut State, args: &[Value]| -> Result<Value, Error> {
            meter.guard(&name, args)?;
            let unknown = |kind| Error::new(kind, format!("there is no {name:?}"));
            let named = |e: Error| match e.kind() {
                kind @ (ErrorKind::UnknownFilter | ErrorKind::UnknownTest) => unknown(kind),
                _ => e,
            };
            let result = match kind {
                "filter" => state.apply_filter(&name, args),
                "test" => state.perform_test(&name, args).map(Value::from),
                _ => match state.lookup(&name) {
                    Some(function) => function.call(state, args),
                    None => Err(unknown(ErrorKind::UnknownFunction)),
                },
            }
            .map_err(named)?;
            meter.charge(&[&result])?;
            Ok(result)
        };
        env.add_global(stand_in.clone(), Value::from_object(Callable(Box::new(call))));
    }
    let mut step = |name: &'static str, run: fn(&Meter, &mut State, &[Value]) -> Result<Value, Error>| {
        let meter = Arc::clone(meter);
        let call = move |state: &mut State, args: &[Value]| run(&meter, state, args);
        env.add_global(name, Value::from_object(Callable(Box::new(call))));
    };
    step("step concat", |meter, _, args| {
        meter.charge(&[&args[0], &args[1]])?;
        Ok(Value::from(format!("{}{}", args[0], args[1])))
    });
    step("step add", add);
    step("step multiply", multiply);
    step("step slice", |meter, state, args| {
        // Texts are cut by character, which costs far more than copying them.
        let size = meter.charge(&[&args[0]])?;
        meter.work(8 * size)?;
        evaluate(
            state,
            "v[a:b:c]",
            context! { v => args[0].clone(), a => args[1].clone(), b => args[2].clone(), c => args[3].clone() },
        )
    });
    step("step list", |meter, _, args| {
        meter.charge(&args.iter().collect::<Vec<_>>())?;
        Ok(Value::from(args.to_vec()))
    });
    step("step tuple", |meter, _, args| {
        meter.charge(&args.iter().collect::<Vec<_>>())?;
        Ok(Value::from(Tuple::from(args.to_vec())))
    });
    step("step map", |meter, _, args| {
        meter.charge(&args.iter().collect::<Vec<_>>())?;
        Ok(Value::from_pairs(args.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()))))
    });
    step("step ==", |meter, _, args| compare(meter, args, |a, b| a == b));
    step("step !=", |meter, _, args| compare(meter, args, |a, b| a != b));
    step("step <", |meter, _, args| compare(meter, args, |a, b| a < b));
    step("step <=", |meter, _, args| compare(meter, args, |a, b| a <= b));
    step("step >", |meter, _, args| compare(meter, args, |a, b| a > b));
    step("step >=", |meter, _, args| compare(meter, args, |a, b| a >= b));
    step("step in", |meter, state, args| {
        meter.charge(&[&args[0], &args[1]])?;
        evaluate(state, "l in r", context! { l => args[0].clone(), r => args[1].clone() })
    });
}

fn compare(meter: &Meter, args: &[Value], holds: fn(&Value, &Value) -> bool) -> Result<Value, Error> {
    meter.charge(&[&args[0], &args[1]])?;
    Ok(Value::from(holds(&args[0], &args[1])))
}

/// Lets the engine do an operation on values that were measured.
fn evaluate(state: &State, operation: &'static str, values: Value) -> Result<Value, Error> {
    state.env().compile_expression(operation)?.eval(values)
}

fn add(meter: &Meter, state: &mut State, args: &[Value]) -> Result<Value, Error> {
    let (left, right) = (&args[0], &args[1]);
    if let Some(sum) = integer(left).zip(integer(right)).and_then(|(l, r)| l.checked_add(r)) {
        return Ok(Value::from(sum));
    }
    meter.charge(&[left, right])?;
    let is_list = |v: &Value| v.kind() == ValueKind::Seq && v.downcast_object_ref::<Tuple>().is_none();
    if is_list(left) && is_list(right) {
        // The engine would keep the two halves; a list of its own cannot become a maze of shared halves.
        return Ok(Value::from(left.try_iter()?.chain(right.try_iter()?).collect::<Vec<_>>()));
    }
    evaluate(state, "l + r", context! { l => left.clone(), r => right.clone() })
}

fn multiply(meter: &Meter, state: &mut State, args: &[Value]) -> Result<Value, Error> {
    let (left, right) = (&args[0], &args[1]);
    for (many, count) in [(left, right), (right, left)] {
        if many.kind() != ValueKind::Number {
            let times = count.as_i64().unwrap_or(0).max(0) as u64;
            meter.room(meter.charge(&[many])?.saturating_mul(times))?;
        }
    }
    evaluate(state, "l * r", context! { l => left.clone(), r => right.clone() })
}

fn integer(value: &Value) -> Option<i64> {
    if value.is_integer() { value.as_i64() } else { None }
}
