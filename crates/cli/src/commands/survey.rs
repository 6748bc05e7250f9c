use clap::builder::FalseyValueParser;
use windlass::ops::survey::{Options, Status, survey};
use windlass::{Code, Error, Result, ops};

use crate::context::Context;

/// Try every op of every provider against the reference
#[derive(clap::Args)]
pub struct Survey {
    /// Small arguments of few types
    #[arg(long, env = "WINDLASS_QUICK", value_parser = FalseyValueParser::new())]
    quick: bool,
    /// Only this provider
    #[arg(long, env = "WINDLASS_PROVIDER", value_name = "NAME")]
    provider: Option<String>,
    /// Only this op
    #[arg(long, value_name = "NAME")]
    op: Option<String>,
}

impl Survey {
    pub fn run(self, context: &Context) -> Result<()> {
        windlass::register_providers();
        let provider = self.provider.as_deref().map(ops::provider_name).transpose()?;
        let op = self.op.as_deref().map(ops::op).transpose()?.map(|op| op.name);
        let options = Options { quick: self.quick, provider, op };
        let report = context.compute(None, |cx| survey(cx, &options))??;
        let verdict = match report.summary.wrong + report.summary.error {
            0 => Ok(()),
            bad => Err(Error::new(Code::Gate, format!("{bad} cases of the survey did not pass"))),
        };
        context.judge(&report, verdict, |out| {
            for case in report.cases.iter().filter(|case| matches!(case.status, Status::Wrong | Status::Error)) {
                let (status, why) = (format!("{:?}", case.status).to_lowercase(), case.message.as_deref().unwrap_or(""));
                writeln!(out, "{status:6} {} {} {} {:?}: {why}", case.op, case.provider, case.dtype, case.profile)?;
            }
            let s = &report.summary;
            writeln!(out, "{} passed, {} wrong, {} failed, {} unsupported", s.pass, s.wrong, s.error, s.unsupported)?;
            writeln!(out, "{} ops have no kernel but the reference", s.reference_only)
        })
    }
}
