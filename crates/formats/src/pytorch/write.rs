//! Laying out state dicts as `torch.save` writes them: a zip of a pickle and a member for each tensor.

use std::collections::HashSet;

use windlass_tensor::DType;

use super::{NAMING, globals};
use crate::archive::{self, Member};
use crate::safetensors::write::{plain, split};
use crate::safetensors::{cannot_hold, index, without_quantization};
use crate::{Error, Extent, Layout, LayoutPart, Target, TargetTensor};

/// What values of a member begin at a multiple of, as in PyTorch's own files.
const ALIGNMENT: u64 = 64;

/// Fixes every byte but the values.
pub(super) fn layout(target: &Target) -> Result<Layout, Error> {
    let mut names = HashSet::new();
    if let Some(twice) = target.tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
        return Err(Error::Layout(format!("two tensors would be called {:?}", twice.name)));
    }
    let sizes: Vec<u64> =
        target.tensors.iter().map(|t| Ok(plain(t, dtype(t)?)?.bytes)).collect::<Result<_, Error>>()?;
    let groups = split(&sizes, target.part_size);
    if groups.len() > 99_999 {
        return Err(Error::Layout(format!("{} parts are too many: choose larger parts", groups.len())));
    }
    let mut layout = Layout { tensors: vec![Vec::new(); target.tensors.len()], ..Layout::default() };
    for (number, group) in groups.iter().enumerate() {
        let (part, offsets) = part(part_name(number, groups.len()), &target.tensors, &sizes, group)?;
        for (tensor, offset) in group.iter().zip(offsets) {
            layout.tensors[*tensor].push(Extent { part: number, offset, length: sizes[*tensor] });
        }
        layout.parts.push(part);
    }
    layout.files = target.files.iter().filter(|(name, _)| name != NAMING.index).cloned().collect();
    layout.folder = !target.files.is_empty() || target.part_size.is_some();
    if groups.len() > 1 {
        let part = |(number, group): (usize, &Vec<usize>)| {
            let name = part_name(number, groups.len());
            group.iter().map(move |tensor| (*tensor, name.clone())).collect::<Vec<_>>()
        };
        let map: Vec<(usize, String)> = groups.iter().enumerate().flat_map(part).collect();
        let map: Vec<(&str, &str)> =
            map.iter().map(|(i, part)| (target.tensors[*i].name.as_str(), part.as_str())).collect();
        let values = target.tensors.iter().map(|t| t.shape.iter().map(|d| *d as u64).product::<u64>()).sum();
        layout.files.push((NAMING.index.into(), index::write(&map, sizes.iter().sum(), values, 2).into_bytes()));
    }
    // Texts beside the tensors would be keys that no module knows.
    let keys = target.metadata.iter().map(|(key, _)| key).filter(|key| *key != "format");
    layout.left_out = keys.map(String::from).collect();
    without_quantization(&mut layout)?;
    Ok(layout)
}

fn part_name(number: usize, count: usize) -> String {
    match count {
        1 => NAMING.single.into(),
        _ => format!("{}{:05}-of-{count:05}{}", NAMING.prefix, number + 1, NAMING.extension),
    }
}

fn dtype(tensor: &TargetTensor) -> Result<DType, Error> {
    let dtype = tensor.element.dtype().filter(|dtype| globals::name_of(*dtype).is_some());
    dtype.ok_or_else(|| cannot_hold("pytorch", &tensor.element, &tensor.name))
}

/// One file with the tensors `group`, and where the values of each begin.
fn part(
    name: String,
    tensors: &[TargetTensor],
    sizes: &[u64],
    group: &[usize],
) -> Result<(LayoutPart, Vec<u64>), Error> {
    let known = |name: &str, head: Vec<u8>| Member { name: format!("archive/{name}"), length: head.len() as u64, head };
    let mut members = vec![known("data.pkl", pickle(tensors, group)?), known("byteorder", b"little".to_vec())];
    let values = group.iter().enumerate().map(|(key, tensor)| Member {
        name: format!("archive/data/{key}"),
        head: Vec::new(),
        length: sizes[*tensor],
    });
    members.extend(values);
    members.push(known("version", b"3\n".to_vec()));
    let (part, mut offsets) = archive::lay(name, members, ALIGNMENT)?;
    offsets.pop();
    Ok((part, offsets.split_off(2)))
}

/// The program that makes the state dict, in protocol 2 as PyTorch's own, without a memo.
fn pickle(tensors: &[TargetTensor], group: &[usize]) -> Result<Vec<u8>, Error> {
    let mut p = Program(b"\x80\x02".to_vec());
    p.ordered_dict();
    p.0.push(b'(');
    for (key, tensor) in group.iter().enumerate().map(|(key, i)| (key, &tensors[*i])) {
        let dtype = dtype(tensor)?;
        let Some((class, name)) = globals::name_of(dtype) else { continue };
        // Types that came after the classes of storages are said by the tensor itself, over a storage of bytes.
        let old = !class.is_empty();
        p.text(&tensor.name);
        p.global("torch._utils", if old { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" });
        p.0.extend(b"((");
        p.text("storage");
        if old {
            p.global("torch", class)
        } else {
            p.global("torch.storage", "UntypedStorage")
        }
        p.text(&key.to_string());
        p.text("cpu");
        let values = tensor.shape.iter().product::<usize>() as u64;
        p.number(if old { values } else { values * dtype.size() as u64 });
        // The storage by its name, the first value, shape, strides, no gradient, no hooks.
        p.0.extend(b"tQ");
        p.number(0);
        p.tuple(&tensor.shape);
        p.tuple(&strides(&tensor.shape));
        p.0.push(0x89);
        p.ordered_dict();
        if !old {
            p.global("torch", name);
        }
        p.0.extend(b"tR");
    }
    p.0.extend(b"u.");
    Ok(p.0)
}

/// Values between neighbours of each dimension, as PyTorch counts them: an empty dimension counts as one.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

/// A pickle that is being written.
struct Program(Vec<u8>);

impl Program {
    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").bytes());
    }

    fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.0.extend(b")R");
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.bytes());
    }

    fn number(&mut self, number: u64) {
        match i32::try_from(number) {
            Ok(number) => {
                self.0.push(b'J');
                self.0.extend(number.to_le_bytes());
            }
            // A long of eight bytes; no number here has its highest bit.
            Err(_) => {
                self.0.extend([0x8a, 8]);
                self.0.extend(number.to_le_bytes());
            }
        }
    }

    fn tuple(&mut self, numbers: &[usize]) {
        self.0.push(b'(');
        numbers.iter().for_each(|n| self.number(*n as u64));
        self.0.push(b't');
    }
}
