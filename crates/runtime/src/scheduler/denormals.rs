//! Denormal floats as zero, while a value of [`FlushDenormals`] lives.

/// Sets flush-to-zero and denormals-are-zero on this thread; restores what was there when dropped.
pub(super) struct FlushDenormals {
    #[cfg(target_arch = "x86_64")]
    before: u32,
}

impl FlushDenormals {
    pub(super) fn new() -> FlushDenormals {
        #[cfg(target_arch = "x86_64")]
        {
            let before = control();
            set_control(before | FLUSH);
            FlushDenormals { before }
        }
        #[cfg(not(target_arch = "x86_64"))]
        FlushDenormals {}
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for FlushDenormals {
    fn drop(&mut self) {
        set_control(control() & !FLUSH | self.before & FLUSH);
    }
}

/// Bits of the control register: flush to zero, denormals are zero.
#[cfg(target_arch = "x86_64")]
const FLUSH: u32 = 0x8040;

#[cfg(target_arch = "x86_64")]
fn control() -> u32 {
    let mut value = 0u32;
    // SAFETY: writes the control register, four bytes, to the four bytes of `value`.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value
}

#[cfg(target_arch = "x86_64")]
fn set_control(value: u32) {
    // SAFETY: reads four bytes of `value`, which came from `control` and differ at most in bits that every x86-64 has;
    // rounding and exception masks stay as they were, so that compiled code keeps its meaning but for denormals.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
}
