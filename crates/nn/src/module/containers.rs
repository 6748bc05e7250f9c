//! Modules made of modules.

use std::collections::BTreeMap;

use super::{Builder, Init, Module, Run};
use crate::{Error, Var};

/// Collects modules that follow each other, under the names `0`, `1`, ...
pub struct Layers<'p> {
    builder: Builder<'p>,
    all: Vec<Box<dyn Module>>,
}

impl Layers<'_> {
    /// Adds what `make` builds.
    pub fn push<M: Module + 'static>(&mut self, make: impl FnOnce(Builder) -> Result<M, Error>) -> Result<(), Error> {
        let module = make(self.builder.at(self.all.len()))?;
        self.all.push(Box::new(module));
        Ok(())
    }
}

/// One module after the other.
pub struct Sequential(ModuleList);

impl Sequential {
    /// Of the modules that `fill` pushes.
    pub fn new(builder: Builder, fill: impl FnOnce(&mut Layers) -> Result<(), Error>) -> Result<Self, Error> {
        ModuleList::new(builder, fill).map(Self)
    }
}

impl Module for Sequential {
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        self.0.iter().try_fold(x.clone(), |x, module| module.forward(run, &x))
    }
}

/// Modules by number; whoever holds them says what they compute.
pub struct ModuleList(Vec<Box<dyn Module>>);

impl ModuleList {
    /// Of the modules that `fill` pushes.
    pub fn new(builder: Builder, fill: impl FnOnce(&mut Layers) -> Result<(), Error>) -> Result<Self, Error> {
        let mut layers = Layers { builder, all: Vec::new() };
        fill(&mut layers)?;
        Ok(Self(layers.all))
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Module> {
        self.0.iter().map(|module| &**module)
    }

    /// The module of a number.
    pub fn get(&self, index: usize) -> Option<&dyn Module> {
        self.0.get(index).map(|module| &**module)
    }
}

/// Modules by name; whoever holds them says what they compute.
#[derive(Default)]
pub struct ModuleDict(BTreeMap<String, Box<dyn Module>>);

impl ModuleDict {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module, which was built at its name.
    pub fn insert(&mut self, name: impl Into<String>, module: impl Module + 'static) {
        self.0.insert(name.into(), Box::new(module));
    }

    /// The module of a name.
    pub fn get(&self, name: &str) -> Option<&dyn Module> {
        self.0.get(name).map(|module| &**module)
    }
}

/// Parameters by number.
#[derive(Debug)]
pub struct ParameterList(Vec<usize>);

impl ParameterList {
    /// One of each shape, under `0`, `1`, ...
    pub fn new(mut builder: Builder, shapes: &[&[usize]], init: Init) -> Result<Self, Error> {
        let places = shapes.iter().enumerate().map(|(i, shape)| builder.parameter(&i.to_string(), shape, init));
        places.collect::<Result<_, _>>().map(Self)
    }

    /// The parameter of a number.
    pub fn get<'r>(&self, run: &'r Run, index: usize) -> Result<&'r Var, Error> {
        let missing = || Error::Parameter { name: index.to_string(), message: "is not in the list".into() };
        run.parameter(*self.0.get(index).ok_or_else(missing)?)
    }
}
