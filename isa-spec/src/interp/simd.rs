//! Which vector instructions the interpreter's kernels use.
//!
//! A [`Simd`] is proof that the CPU has the instructions of its level, so what is compiled for them may be
//! called. The results do not depend on it: every level computes the same bits, which tests show on every
//! level that the CPU has.

use std::fmt;
use std::str::FromStr;

/// Sets of vector instructions that there are kernels for, each a superset of those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every CPU of the architecture has.
    Portable,
    /// AVX2.
    Avx2,
    /// AVX2 and its dot products of bytes.
    AvxVnni,
    /// AVX-512 with its dot products of bytes.
    Avx512Vnni,
}

impl Level {
    /// All, the slowest first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::AvxVnni, Self::Avx512Vnni];

    /// Its name, as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        match self {
            Self::Portable => true,
            Self::Avx2 => has!("avx2") && has!("bmi2"),
            Self::AvxVnni => Self::Avx2.is_available() && has!("avxvnni"),
            Self::Avx512Vnni => {
                Self::Avx2.is_available()
                    && has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512dq")
                    && has!("avx512vl")
                    && has!("avx512vnni")
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Vector instructions that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simd(Level);

/// Why a level cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimdError {
    /// No level is called so.
    #[error("`{0}` names no vector instructions; there are {list}", list = names(Level::ALL))]
    Unknown(String),
    /// The CPU does not have it.
    #[error("this CPU does not have `{0}`; it has {list}", list = names(Simd::available().map(Simd::level)))]
    Unavailable(Level),
}

fn names(levels: impl IntoIterator<Item = Level>) -> String {
    levels.into_iter().map(Level::name).collect::<Vec<_>>().join(", ")
}

impl Simd {
    /// The fastest that the CPU has.
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self(Level::Portable))
    }

    /// All that the CPU has, the slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Level::ALL.into_iter().filter(|level| level.is_available()).map(Self)
    }

    /// Those of a level.
    ///
    /// # Errors
    /// If the CPU does not have them.
    pub fn new(level: Level) -> Result<Self, SimdError> {
        if level.is_available() { Ok(Self(level)) } else { Err(SimdError::Unavailable(level)) }
    }

    /// The level.
    pub fn level(self) -> Level {
        self.0
    }
}

impl FromStr for Simd {
    type Err = SimdError;

    fn from_str(name: &str) -> Result<Self, SimdError> {
        let level = Level::ALL.into_iter().find(|level| level.name() == name);
        level.map_or_else(|| Err(SimdError::Unknown(name.to_owned())), Self::new)
    }
}

/// Declares functions whose bodies are compiled once for each set of vector widths; each takes a [`Simd`]
/// first, which picks one. The body is plain Rust that the compiler vectorises.
macro_rules! vectorised {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($simd:ident; $($arg:ident: $type:ty),* $(,)?)
            $(-> $result:ty)? $body:block
    )*) => {$(
        $(#[$attribute])*
        $visibility fn $name($simd: $crate::interp::simd::Simd, $($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::interp::simd::Level;
                    #[target_feature(enable = "avx2,bmi2")]
                fn avx2($($arg: $type),*) $(-> $result)? { body($($arg),*) }
                    #[target_feature(enable = "avx2,bmi2,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $type),*) $(-> $result)? { body($($arg),*) }
                match $simd.level() {
                    Level::Portable => {}
                    // SAFETY: a `Simd` is made only of a level whose features the CPU has.
                    Level::Avx2 | Level::AvxVnni => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx512Vnni => return unsafe { avx512($($arg),*) },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = $simd;
            body($($arg),*)
        }
    )*};
}
pub(super) use vectorised;
