//! Looks for what other programs bring: drivers of GPUs, MPI and NCCL, by trying to load their libraries.
//!
//! Nothing is set up by looking: no context, no process group. A library that is found stays loaded, because some do not
//! survive being unloaded.

use std::ffi::{CStr, c_char, c_int};

use libloading::{Library, Symbol};
use windlass_tensor::DType;

use super::{Device, Facts, Memory, Processors, register_library, register_probe};

/// Registers the probes for `cuda`, `wgpu`, `mpi` and `nccl`, unless somebody has registered others already.
pub fn register_probes() {
    let taken = [
        register_probe("cuda", cuda),
        register_probe("wgpu", vulkan),
        register_library("mpi", mpi),
        register_library("nccl", nccl),
    ];
    // Who knows more about a device, such as the provider that computes on it, has registered its own probe.
    drop(taken);
}

/// A library that was loaded, and the name under which it was found.
struct Loaded {
    library: &'static Library,
    name: &'static str,
}

/// Loads the first of `names` that can be loaded; the error says why none can.
fn load(names: &[&'static str]) -> Result<Loaded, String> {
    let (mut absent, mut reasons) = (Vec::new(), Vec::new());
    for name in names {
        // SAFETY: these are libraries of the system whose initialisers every program that links them runs; none asks for
        // more than that, and the library stays loaded for the life of the process.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(Loaded { library: Box::leak(Box::new(library)), name }),
            Err(error) => match reason(name, &error) {
                Some(reason) => reasons.push(reason),
                None => absent.push(*name),
            },
        }
    }
    if !absent.is_empty() {
        reasons.push(format!("the system's loader does not find {}", absent.join(" or ")));
    }
    Err(reasons.join("; "))
}

/// Why a library that is there cannot be loaded, such as one that it needs; `None` where it is not there.
fn reason(name: &str, error: &libloading::Error) -> Option<String> {
    let source = std::error::Error::source(error).map(ToString::to_string);
    let text = source.unwrap_or_else(|| error.to_string());
    let absent = text.starts_with(name) && text.contains("No such file") || text.contains("(no such file)");
    (!absent).then(|| format!("{name} cannot be loaded ({text})"))
}

impl Loaded {
    /// A function of the library.
    ///
    /// # Safety
    /// `T` is the type that the library's documentation gives the function.
    unsafe fn function<T: Copy>(&self, name: &str) -> Result<T, String> {
        // SAFETY: as the caller promises.
        let found: Result<Symbol<T>, _> = unsafe { self.library.get(name.as_bytes()) };
        found.map(|symbol| *symbol).map_err(|_| format!("{} has no function {name}", self.name))
    }
}

const CUDA: &[&str] = if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

/// NVIDIA GPUs by the driver's interface.
fn cuda() -> Result<Vec<Facts>, String> {
    if cfg!(target_os = "macos") {
        return Err("NVIDIA has no driver for macOS".into());
    }
    let driver = load(CUDA)?;
    // SAFETY: the types are those of the CUDA driver API, which did not change since its version 2.
    let (init, version, count) = unsafe {
        (
            driver.function::<extern "C" fn(u32) -> c_int>("cuInit")?,
            driver.function::<extern "C" fn(*mut c_int) -> c_int>("cuDriverGetVersion")?,
            driver.function::<extern "C" fn(*mut c_int) -> c_int>("cuDeviceGetCount")?,
        )
    };
    let checked = |what: &str, code: c_int| match code {
        0 => Ok(()),
        100 => Err(format!("{} says that there is no device ({what} gives 100)", driver.name)),
        code => Err(format!("{}: {what} gives error {code}", driver.name)),
    };
    let (mut number, mut devices) = (0, 0);
    checked("cuInit", init(0))?;
    checked("cuDriverGetVersion", version(&mut number))?;
    checked("cuDeviceGetCount", count(&mut devices))?;
    (0..devices).map(|index| gpu(&driver, index, number)).collect()
}

fn gpu(driver: &Loaded, index: c_int, version: c_int) -> Result<Facts, String> {
    // SAFETY: the types are those of the CUDA driver API.
    let (get, name, memory, attribute) = unsafe {
        (
            driver.function::<extern "C" fn(*mut c_int, c_int) -> c_int>("cuDeviceGet")?,
            driver.function::<extern "C" fn(*mut c_char, c_int, c_int) -> c_int>("cuDeviceGetName")?,
            driver.function::<extern "C" fn(*mut usize, c_int) -> c_int>("cuDeviceTotalMem_v2")?,
            driver.function::<extern "C" fn(*mut c_int, c_int, c_int) -> c_int>("cuDeviceGetAttribute")?,
        )
    };
    let (mut handle, mut text, mut bytes) = (0, [0 as c_char; 256], 0);
    if get(&mut handle, index) != 0 || name(text.as_mut_ptr(), 255, handle) != 0 || memory(&mut bytes, handle) != 0 {
        return Err(format!("{}: device {index} does not answer", driver.name));
    }
    let ask = |which: c_int| {
        let mut value = 0;
        (attribute(&mut value, which, handle) == 0).then_some(value)
    };
    // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, and _COMPUTE_CAPABILITY_MAJOR and _MINOR.
    let (processors, capability) = (ask(16), (ask(75).unwrap_or(0), ask(76).unwrap_or(0)));
    let has = |dtype: &DType| match dtype {
        DType::BF16 => capability >= (8, 0),
        DType::F16 => capability >= (5, 3),
        DType::F8E4M3 | DType::F8E5M2 => capability >= (8, 9),
        DType::F8E8M0 | DType::C64 => false,
        _ => true,
    };
    let processors = processors.and_then(|count| usize::try_from(count).ok());
    Ok(Facts {
        device: Device::new("cuda", index as u32),
        name: words(&text),
        memory: Memory { total: Some(bytes as u64), free: None },
        processors: Processors { present: processors, allowed: processors, quota: None },
        caches: Vec::new(),
        features: vec![format!("sm_{}{}", capability.0, capability.1)],
        dtypes: DType::built_in().filter(has).collect(),
        details: vec![("driver's CUDA version", format!("{}.{}", version / 1000, version % 1000 / 10))],
    })
}

/// The text up to its zero.
fn words(text: &[c_char]) -> String {
    let bytes: Vec<u8> = text.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

const VULKAN: &[&str] = if cfg!(windows) {
    &["vulkan-1.dll"]
} else if cfg!(target_os = "macos") {
    &["libvulkan.1.dylib", "libMoltenVK.dylib"]
} else {
    &["libvulkan.so.1", "libvulkan.so"]
};

/// Whether GPUs can be reached through Vulkan. What they are is for the provider that computes on them to find out.
fn vulkan() -> Result<Vec<Facts>, String> {
    let unused = "and this build computes nothing on it";
    if cfg!(target_os = "macos") {
        return Err(format!("Metal is there, as on every Mac, {unused}"));
    }
    let loader = load(VULKAN)?;
    // SAFETY: the type is that of vkEnumerateInstanceVersion; loaders of Vulkan 1.0 lack it.
    let version = unsafe { loader.function::<extern "C" fn(*mut u32) -> c_int>("vkEnumerateInstanceVersion") };
    let mut number = 1 << 22;
    if version.is_ok_and(|version| version(&mut number) != 0) {
        return Err(format!("{} does not tell its version", loader.name));
    }
    let (major, minor) = (number >> 22, number >> 12 & 0x3ff);
    Err(format!("{} offers Vulkan {major}.{minor}, {unused}", loader.name))
}

const MPI: &[&str] = if cfg!(windows) {
    &["msmpi.dll"]
} else if cfg!(target_os = "macos") {
    &["libmpi_abi.0.dylib", "libmpi.40.dylib", "libmpi.12.dylib"]
} else {
    &["libmpi_abi.so.0", "libmpi.so.40", "libmpi.so.12", "libmpich.so.12", "libmpi.so"]
};

/// The version of the MPI library, which may be asked for before MPI is set up (MPI 3.0, section 8.7).
fn mpi() -> Result<String, String> {
    let remedy = "install MPICH or Open MPI, or put the folder of its library into LD_LIBRARY_PATH";
    let library = load(MPI).map_err(|why| format!("{why}; {remedy}"))?;
    // SAFETY: the type is that of MPI_Get_library_version, whose arguments are C types in every ABI.
    let version =
        unsafe { library.function::<extern "C" fn(*mut c_char, *mut c_int) -> c_int>("MPI_Get_library_version")? };
    // MPI_MAX_LIBRARY_VERSION_STRING is 256 in Open MPI and 8192 in MPICH.
    let (mut text, mut length) = (vec![0 as c_char; 1 << 14], 0);
    if version(text.as_mut_ptr(), &mut length) != 0 {
        return Err(format!("{} does not tell its version", library.name));
    }
    let first = words(&text).lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(format!("{first} ({})", library.name))
}

/// The version of NCCL.
fn nccl() -> Result<String, String> {
    if !cfg!(target_os = "linux") {
        return Err("NCCL is for Linux".into());
    }
    let library = load(&["libnccl.so.2", "libnccl.so"])?;
    // SAFETY: the types are those of ncclGetVersion and ncclGetErrorString.
    let (version, error) = unsafe {
        (
            library.function::<extern "C" fn(*mut c_int) -> c_int>("ncclGetVersion")?,
            library.function::<extern "C" fn(c_int) -> *const c_char>("ncclGetErrorString")?,
        )
    };
    let mut number = 0;
    let code = version(&mut number);
    if code != 0 {
        let text = error(code);
        if text.is_null() {
            return Err(format!("{}: ncclGetVersion gives error {code}", library.name));
        }
        // SAFETY: NCCL gives texts that live as long as the library, ended by a zero.
        let why = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        return Err(format!("{}: ncclGetVersion gives error {code} ({why})", library.name));
    }
    // Since 2.9 the number has four digits for the major version's place.
    let (major, rest) =
        if number >= 10_000 { (number / 10_000, number % 10_000) } else { (number / 1000, number % 1000) };
    Ok(format!("{major}.{}.{} ({})", rest / 100, rest % 100, library.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_has_a_reason_that_names_it() {
        let why = load(&["libnowhere.so.7", "libelsewhere.so"]).err().unwrap_or_default();
        assert!(why.contains("libnowhere.so.7") && why.contains("libelsewhere.so"), "{why}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_library_that_is_there_but_cannot_be_loaded_has_its_own_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libbroken.so");
        std::fs::write(&path, "not a library").unwrap();
        let path: &'static str = Box::leak(path.to_str().unwrap().to_string().into_boxed_str());
        let why = load(&[path]).err().unwrap_or_default();
        assert!(why.contains("libbroken.so cannot be loaded") && !why.contains("does not find"), "{why}");
    }

    /// The C library is on every machine that runs this: functions are found in it, and missing ones have an error.
    #[test]
    #[cfg(target_os = "linux")]
    fn functions_are_found_by_their_names() {
        let library = load(&["libc.so.6", "libc.so"]).unwrap_or_else(|why| panic!("{why}"));
        // SAFETY: the type is that of C's `abs`; the second function does not exist.
        let (abs, none) = unsafe {
            (
                library.function::<extern "C" fn(c_int) -> c_int>("abs"),
                library.function::<extern "C" fn(c_int) -> c_int>("no_such_function"),
            )
        };
        assert_eq!(abs.map(|abs| abs(-3)), Ok(3));
        assert_eq!(none.map(|_| ()), Err("libc.so.6 has no function no_such_function".into()));
    }

    #[test]
    fn every_probe_answers_with_facts_or_a_reason() {
        for (name, answer) in [("cuda", cuda().map(|_| ())), ("wgpu", vulkan().map(|_| ()))]
            .into_iter()
            .chain([("mpi", mpi().map(|_| ())), ("nccl", nccl().map(|_| ()))])
        {
            assert!(answer.clone().is_ok() || answer.clone().is_err_and(|why| why.len() > 10), "{name}: {answer:?}");
        }
    }
}
