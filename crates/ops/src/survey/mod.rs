//! The survey: every op, with every type and family of arguments, by every provider that has a kernel, against the
//! reference.

use serde::Serialize;
use windlass_quant::schemes;
use windlass_tensor::{DType, Tensor};

use crate::args::numbers;
use crate::provider::{Provider, Reference, providers};
use crate::{Context, Error, Op, Recorder, all_ops};

mod profile;

pub use profile::{Fill, Kind, Profile, Sample, Surveyed};

/// What to survey.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Small arguments of few types.
    pub quick: bool,
    /// Only this provider.
    pub provider: Option<&'static str>,
    /// Only this op.
    pub op: Option<&'static str>,
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pass,
    /// A value left the tolerance.
    Wrong,
    /// The call failed.
    Error,
    /// The kernel says that it does not take such arguments.
    Unsupported,
}

/// One op with one family of arguments of one type, by one provider.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    pub op: &'static str,
    pub provider: &'static str,
    /// `f32`, `q4_0`.
    pub dtype: String,
    pub profile: &'static str,
    pub status: Status,
    /// How far the worst value is from the reference. The largest number where it is not a number or infinite.
    pub error_measure: f64,
    /// How far that value may be.
    pub tolerance: f64,
    /// Why, where the case did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Numbers of cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub pass: usize,
    pub wrong: usize,
    pub error: usize,
    pub unsupported: usize,
    /// Ops of which only the reference has a kernel. It ran, there was nothing to compare it with.
    pub reference_only: usize,
}

/// All cases, and how many there are of each kind.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub cases: Vec<Case>,
    pub summary: Summary,
}

/// Tries every op. A case of the provider `reference` is in the report only where the reference failed. An error means
/// that inputs could not be made.
pub fn survey(cx: &Context, options: &Options) -> Result<Report, Error> {
    let mut report = Report::default();
    let all = providers();
    for op in all_ops().filter(|op| options.op.is_none_or(|name| op.name == name)) {
        let chosen = all.iter().filter(|p| options.provider.is_none_or(|name| p.name == name));
        let serving: Vec<&Provider> = chosen.filter(|p| p.kernel(op.name).is_some()).copied().collect();
        let profiles = (op.profiles)(op);
        if serving.is_empty() {
            report.summary.reference_only += 1;
        }
        for (number, profile) in profiles.iter().enumerate() {
            if options.quick && (profile.values() > 1 << 13 || number >= 6) {
                continue;
            }
            for surveyed in types(profile, options.quick) {
                try_one(cx, op, profile, surveyed, &serving, &mut report.cases)?;
            }
        }
    }
    for case in &report.cases {
        *match case.status {
            Status::Pass => &mut report.summary.pass,
            Status::Wrong => &mut report.summary.wrong,
            Status::Error => &mut report.summary.error,
            Status::Unsupported => &mut report.summary.unsupported,
        } += 1;
    }
    Ok(report)
}

/// The types that a profile is tried with.
pub(crate) fn types(profile: &Profile, quick: bool) -> Vec<Surveyed> {
    let varies = profile.inputs.iter().any(|sample| matches!(sample.kind, Kind::Surveyed | Kind::Weight));
    let plain: &[DType] = match (varies, quick) {
        (false, _) => &[DType::F32],
        (true, true) => &[DType::F32, DType::BF16],
        (true, false) => &[DType::F32, DType::F16, DType::BF16],
    };
    let mut types: Vec<Surveyed> = plain.iter().map(|dtype| Surveyed::Plain(*dtype)).collect();
    if profile.inputs.iter().any(|sample| sample.kind == Kind::Weight) {
        let usual = |name: &str| !quick || matches!(name, "q8_0" | "q4_0" | "q4_k" | "q6_k");
        types.extend(schemes().into_iter().filter(|s| s.can_encode() && usual(s.name())).map(Surveyed::Packed));
    }
    types
}

fn try_one(
    cx: &Context,
    op: &'static Op,
    profile: &Profile,
    surveyed: Surveyed,
    serving: &[&Provider],
    cases: &mut Vec<Case>,
) -> Result<(), Error> {
    let dtype = match surveyed {
        Surveyed::Plain(dtype) => dtype.name().to_lowercase(),
        Surveyed::Packed(scheme) => scheme.name().to_string(),
    };
    let mut case = Case {
        op: op.name,
        provider: Reference::NAME,
        dtype,
        profile: profile.name,
        status: Status::Pass,
        error_measure: 0.0,
        tolerance: 0.0,
        message: None,
    };
    let made = profile.inputs.iter().enumerate().map(|(i, sample)| sample.make(i as u64 + 1, surveyed));
    let Some(made) = made.collect::<Result<Option<Vec<Tensor>>, Error>>()? else { return Ok(()) };
    let inputs: Vec<&Tensor> = made.iter().collect();
    let call = |provider: &'static str| {
        let recorder = Recorder::new();
        let context = Context::new(cx.session()).with_provider(provider).with_recorder(&recorder);
        context.call(op, &inputs, &profile.attributes)
    };
    let expected = match call(Reference::NAME) {
        Ok(outputs) => outputs,
        Err(error) => {
            cases.push(Case { status: Status::Error, message: Some(error.to_string()), ..case });
            return Ok(());
        }
    };
    for provider in serving {
        case.provider = provider.name;
        let (status, message, measure) = match call(provider.name) {
            Err(error @ Error::NoKernel { .. }) => (Status::Unsupported, Some(error.to_string()), (0.0, 0.0)),
            Err(error) => (Status::Error, Some(error.to_string()), (0.0, 0.0)),
            Ok(found) => match compare(op, &expected, &found)? {
                Worst { place: None, error, allowed, .. } => (Status::Pass, None, (error, allowed)),
                Worst { place: Some(place), error, allowed } => (Status::Wrong, Some(place), (error, allowed)),
            },
        };
        cases.push(Case { status, message, error_measure: measure.0, tolerance: measure.1, ..case.clone() });
    }
    Ok(())
}

/// The value that is furthest out, in shares of what it may be.
struct Worst {
    error: f64,
    allowed: f64,
    /// Where, and what stands there; where it is too far out.
    place: Option<String>,
}

fn compare(op: &'static Op, expected: &[Tensor], found: &[Tensor]) -> Result<Worst, Error> {
    let mut worst = Worst { error: 0.0, allowed: f64::from(op.tolerance.absolute), place: None };
    let mut share = 0.0;
    for (number, (e, f)) in expected.iter().zip(found).enumerate() {
        let rounding = match e.element().dtype() {
            Some(DType::F16) => 2f64.powi(-10),
            Some(DType::BF16) => 2f64.powi(-7),
            _ => 0.0,
        };
        for (i, (e, f)) in numbers(op, e)?.into_iter().zip(numbers(op, f)?).enumerate() {
            if e == f || e.is_nan() && f.is_nan() {
                continue;
            }
            let relative = f64::from(op.tolerance.relative);
            let relative = if relative > 0.0 { relative.max(rounding) } else { 0.0 };
            let allowed = f64::from(op.tolerance.absolute) + if e.is_finite() { relative * e.abs() } else { 0.0 };
            let error = (e - f).abs();
            let error = if error.is_finite() { error } else { f64::MAX };
            let this = if allowed > 0.0 { error / allowed } else { f64::MAX };
            if this > share {
                let place = || format!("output {number}, value {i}: expected {e:e}, found {f:e}");
                (share, worst) = (this, Worst { error, allowed, place: (this > 1.0).then(place) });
            }
        }
    }
    Ok(worst)
}
