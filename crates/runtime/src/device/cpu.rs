//! What is true of the processors of this machine.

use std::fs::read_to_string;
use std::path::Path;

use windlass_tensor::DType;

use super::{Cache, Device, Facts, Memory, Processors, cgroup};

/// Looks at the machine as it is now.
pub(super) fn facts() -> Facts {
    let membership = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = cgroup::limits(Path::new("/sys/fs/cgroup"), &membership);
    let features = features();
    let mut details = vec![("architecture", std::env::consts::ARCH.to_string())];
    details.extend(limits.memory.map(|bytes| ("container memory limit", format!("{bytes} bytes"))));
    details.extend(limits.quota.map(|quota| ("container processor limit", format!("{quota}"))));
    Facts {
        device: Device::CPU,
        name: name(),
        memory: memory(&read_to_string("/proc/meminfo").unwrap_or_default(), limits),
        processors: processors(limits.quota),
        caches: caches(Path::new("/sys/devices/system/cpu/cpu0/cache")),
        dtypes: dtypes(&features),
        features: features.into_iter().map(String::from).collect(),
        details,
    }
}

fn name() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        matches!(key.trim(), "model name" | "Model" | "Hardware").then(|| value.trim().to_string())
    });
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH))
}

/// The machine's memory (from the text of `/proc/meminfo`), or the container's if that is less.
fn memory(meminfo: &str, limits: cgroup::Limits) -> Memory {
    let bytes = |key: &str| {
        let line = meminfo.lines().find(|line| line.split(':').next() == Some(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
    Memory { total: least(bytes("MemTotal"), limits.memory), free: least(bytes("MemAvailable"), limits.left) }
}

fn processors(quota: Option<f64>) -> Processors {
    let online = read_to_string("/sys/devices/system/cpu/online").ok();
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let allowed = allowed.and_then(count).or_else(|| std::thread::available_parallelism().ok().map(|n| n.get()));
    Processors { present: online.as_deref().and_then(count), allowed, quota }
}

/// How many numbers a list such as `0-3,8` has.
fn count(list: &str) -> Option<usize> {
    list.trim().split(',').try_fold(0usize, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// The caches that the system describes in `folder`.
fn caches(folder: &Path) -> Vec<Cache> {
    let mut caches: Vec<Cache> = (0..16).filter_map(|index| cache(&folder.join(format!("index{index}")))).collect();
    caches.sort_by(|a, b| (a.level, &a.kind).cmp(&(b.level, &b.kind)));
    caches
}

fn cache(folder: &Path) -> Option<Cache> {
    let text = |name: &str| read_to_string(folder.join(name)).ok().map(|text| text.trim().to_string());
    Some(Cache {
        level: text("level")?.parse().ok()?,
        kind: text("type")?,
        bytes: size(&text("size")?)?,
        line: text("coherency_line_size").and_then(|line| line.parse().ok()),
        shared_by: text("shared_cpu_list").as_deref().and_then(count).unwrap_or(1),
    })
}

/// Bytes of a size such as `48K`.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Instruction sets that kernels choose by, by their names in Rust.
fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($detect:ident: $($name:tt)*) => { [$(($name, std::arch::$detect!($name))),*] };
    }
    #[cfg(target_arch = "x86_64")]
    let all = detected!(is_x86_feature_detected:
        "sse4.2" "avx" "f16c" "fma" "avx2" "avxvnni" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512cd"
        "avx512vbmi" "avx512vbmi2" "avx512ifma" "avx512vnni" "avx512vpopcntdq" "avx512bitalg" "avx512bf16" "avx512fp16"
        "gfni" "vaes" "vpclmulqdq" "bmi1" "bmi2" "popcnt");
    #[cfg(target_arch = "aarch64")]
    let all = detected!(is_aarch64_feature_detected:
        "neon" "fp16" "fhm" "bf16" "dotprod" "i8mm" "sve" "sve2" "crc");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let all: [(&str, bool); 0] = [];
    all.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

/// Element types with arithmetic of their own.
fn dtypes(features: &[&str]) -> Vec<DType> {
    let has = |name: &str| features.contains(&name);
    DType::built_in()
        .filter(|dtype| match dtype {
            DType::F16 => has("avx512fp16") || has("fp16"),
            DType::BF16 => has("avx512bf16") || has("bf16"),
            DType::F8E4M3 | DType::F8E5M2 | DType::F8E8M0 | DType::C64 => false,
            _ => true,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described_truly() {
        let facts = facts();
        assert!(!facts.name.is_empty() && facts.dtypes.contains(&DType::F32));
        let allowed = facts.processors.allowed.unwrap();
        // The library counts the quota in; the list of processors does not.
        assert!(allowed >= std::thread::available_parallelism().unwrap().get());
        if cfg!(target_os = "linux") {
            let (total, free) = (facts.memory.total.unwrap(), facts.memory.free.unwrap());
            assert!(free <= total && total > 1 << 26, "{:?}", facts.memory);
            assert!(facts.processors.present.unwrap() >= allowed);
        }
        assert!(facts.caches.windows(2).all(|pair| pair[0].level <= pair[1].level));
        #[cfg(target_arch = "x86_64")]
        {
            // The system's own list of the same processor.
            let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
            let flags: Vec<&str> = info.lines().find(|l| l.starts_with("flags")).unwrap_or("").split(' ').collect();
            for (ours, theirs) in
                [("avx2", "avx2"), ("avx512f", "avx512f"), ("avx512vnni", "avx512_vnni"), ("fma", "fma")]
            {
                assert_eq!(facts.features.iter().any(|f| f == ours), flags.contains(&theirs), "{ours}");
            }
        }
    }

    #[test]
    fn the_container_limits_the_memory() {
        let meminfo = "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    500 kB\n";
        let of = |memory, left| super::memory(meminfo, cgroup::Limits { memory, left, quota: None });
        assert_eq!(of(None, None), Memory { total: Some(1_024_000), free: Some(512_000) });
        assert_eq!(of(Some(300_000), Some(7)), Memory { total: Some(300_000), free: Some(7) });
        assert_eq!(of(Some(1 << 50), Some(1 << 49)), Memory { total: Some(1_024_000), free: Some(512_000) });
        assert_eq!(super::memory("", cgroup::Limits::default()), Memory::default());
    }

    #[test]
    fn lists_and_sizes_are_read() {
        assert_eq!(["0-3,8", "5", "0-0\n", "", "3-1", "x"].map(count), [Some(5), Some(1), Some(1), None, None, None]);
        assert_eq!(["48K", "2M", "64", "1T", "K"].map(size), [Some(49152), Some(2 << 20), Some(64), None, None]);
    }
}
