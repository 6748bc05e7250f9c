//! What this build knows: schemes, containers, architectures, as rows for people and scripts.

use serde::Serialize;
use windlass_formats::{Container, containers};
use windlass_quant::{Family, Importance, Packing};
use windlass_tensor::DType;

/// A row of `windlass schemes`.
#[derive(Debug, Serialize)]
pub struct SchemeRow {
    pub name: &'static str,
    pub family: String,
    pub bits_per_weight: f64,
    /// Values that are coded together.
    pub block: usize,
    pub read: bool,
    pub write: bool,
    /// `ignored`, `used` or `required`.
    pub importance: String,
    /// Ceiling of the relative error on normally distributed values.
    pub error_ceiling: f32,
    /// Containers that can be written with it.
    pub containers: Vec<&'static str>,
}

/// A row of `windlass formats`.
#[derive(Debug, Serialize)]
pub struct FormatRow {
    pub name: &'static str,
    pub description: &'static str,
    pub read: bool,
    pub write: bool,
    pub dtypes: Vec<&'static str>,
    pub schemes: Vec<&'static str>,
}

/// A row of `windlass architectures`.
#[derive(Debug, Serialize)]
pub struct ArchitectureRow {
    pub name: &'static str,
    pub hf_classes: &'static [&'static str],
    pub gguf: &'static str,
}

/// All schemes.
pub fn schemes() -> Vec<SchemeRow> {
    let row = |scheme: windlass_quant::SchemeRef| {
        let packing = Packing { scheme, float: DType::F16 };
        let holds = |c: &&dyn Container| c.can_hold(&packing.element());
        SchemeRow {
            name: scheme.name(),
            family: family(scheme),
            bits_per_weight: packing.bits_per_weight(),
            block: scheme.block(),
            read: true,
            write: scheme.can_encode(),
            importance: match scheme.importance() {
                Importance::Ignored => "ignored",
                Importance::Used => "used",
                Importance::Required => "required",
            }
            .into(),
            error_ceiling: scheme.error_ceiling(),
            containers: containers()
                .iter()
                .map(|c| *c as &dyn Container)
                .filter(|c| holds(c))
                .map(|c| c.name())
                .collect(),
        }
    };
    windlass_quant::schemes().into_iter().map(row).collect()
}

/// A row of the table of families and containers.
#[derive(Debug, Serialize)]
pub struct FamilyRow {
    pub name: String,
    pub schemes: usize,
    /// Schemes that can be written.
    pub written: usize,
    /// For each container its name, and `write` (and read), `read`, or nothing.
    pub containers: Vec<(&'static str, Option<&'static str>)>,
}

/// Which container holds which family.
pub fn families() -> Vec<FamilyRow> {
    let mut rows: Vec<FamilyRow> = Vec::new();
    for scheme in windlass_quant::schemes() {
        let name = family(scheme);
        let at = rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let none = containers().iter().map(|c| (c.name(), None)).collect();
            rows.push(FamilyRow { name, schemes: 0, written: 0, containers: none });
            rows.len() - 1
        });
        let row = &mut rows[at];
        row.schemes += 1;
        row.written += usize::from(scheme.can_encode());
        for ((_, cell), container) in row.containers.iter_mut().zip(containers()) {
            let element = Packing { scheme, float: DType::F16 }.element();
            let read = container.joins_libraries() && windlass_formats::libraries::can_read(scheme.family());
            match (container.can_hold(&element), scheme.can_encode()) {
                (true, true) => *cell = Some("write"),
                (true, false) => *cell = cell.or(Some("read")),
                (false, _) => *cell = cell.or(read.then_some("read")),
            }
        }
    }
    rows
}

/// Names that `--scheme` takes beside those of schemes.
pub fn recipes() -> Vec<&'static str> {
    let names = windlass_quant::recipe::Recipe::names();
    names.into_iter().filter(|name| windlass_quant::scheme(name).is_err()).collect()
}

/// In lower case, as it is printed.
fn family(scheme: windlass_quant::SchemeRef) -> String {
    match scheme.family() {
        Family::CompressedTensors => "compressed-tensors".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// All containers.
pub fn formats() -> Vec<FormatRow> {
    let row = |c: windlass_formats::ContainerRef| {
        let dtypes: Vec<_> = DType::built_in().filter(|d| c.can_hold(&(*d).into())).map(|d| d.name()).collect();
        let held = |s: &windlass_quant::SchemeRef| c.can_hold(&Packing { scheme: *s, float: DType::F16 }.element());
        let schemes: Vec<_> = windlass_quant::schemes().into_iter().filter(held).map(|s| s.name()).collect();
        let write = !dtypes.is_empty() || !schemes.is_empty();
        FormatRow { name: c.name(), description: c.description(), read: true, write, dtypes, schemes }
    };
    containers().into_iter().map(row).collect()
}

/// All architectures.
pub fn architectures() -> Vec<ArchitectureRow> {
    let row = |a: &&'static windlass_catalog::Architecture| ArchitectureRow {
        name: a.name(),
        hf_classes: a.hf_classes(),
        gguf: a.gguf_name(),
    };
    windlass_catalog::architectures().iter().map(row).collect()
}
