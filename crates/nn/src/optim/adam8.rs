//! AdamW with a state of bytes.

use windlass_ops::library::steps::{ADAM8_STEP, BLOCK};
use windlass_ops::{Context, zeros};
use windlass_tensor::{DType, Tensor};

use super::Entry;
use super::adam::{Adam, BETA1, BETA2, EPSILON, SHRINK};
use super::each::{Each, Rule, State, Step};
use crate::{Error, Parameter, Setting};

pub(super) const ENTRY: Entry = Entry {
    name: "adamw8bit",
    about: "AdamW with a quarter of the state (arXiv 2110.02861), as bitsandbytes has it",
    settings: &[
        BETA1,
        BETA2,
        EPSILON,
        SHRINK,
        Setting::new("smallest", 4096.0, "parameters of fewer values keep their state in floats"),
    ],
    make: |settings| {
        let rule = Adam8 { adam: Adam::of(settings, true)?, smallest: settings.count("smallest")? as usize };
        Ok(Box::new(Each::new(rule, settings.get("weight_decay"))))
    },
};

struct Adam8 {
    adam: Adam,
    smallest: usize,
}

impl Rule for Adam8 {
    fn name(&self) -> &'static str {
        "adamw8bit"
    }

    fn begin(&self, parameter: &Parameter) -> Result<State, Error> {
        let values = parameter.tensor.shape().values();
        if values < self.smallest {
            return self.adam.begin(parameter);
        }
        let codes = || zeros(DType::U8, parameter.tensor.shape().to_vec());
        let scales = || zeros(DType::F32, [values.div_ceil(BLOCK)]);
        Ok(vec![("mean", codes()?), ("square", codes()?), ("mean_scale", scales()?), ("square_scale", scales()?)])
    }

    fn change(&self, cx: &Context, step: &Step, gradient: &Tensor, all: &mut [Tensor]) -> Result<(), Error> {
        if all.len() == 3 {
            return self.adam.change(cx, step, gradient, all);
        }
        Ok(cx.call_into(&ADAM8_STEP, &[gradient], &self.adam.attributes(step), all)?)
    }
}
