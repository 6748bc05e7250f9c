//! The lattices: points by index.

/// Points of IQ1_S and IQ1_M: -1, 0 and 1.
pub static IQ1_S: [[i8; 8]; 2048] = signed(points(include_bytes!("grids/iq1_s.bin")));
/// Magnitudes of IQ2_XXS.
pub static IQ2_XXS: [[u8; 8]; 256] = points(include_bytes!("grids/iq2_xxs.bin"));
/// Magnitudes of IQ2_XS.
pub static IQ2_XS: [[u8; 8]; 512] = points(include_bytes!("grids/iq2_xs.bin"));
/// Magnitudes of IQ2_S.
pub static IQ2_S: [[u8; 8]; 1024] = points(include_bytes!("grids/iq2_s.bin"));
/// Magnitudes of IQ3_XXS.
pub static IQ3_XXS: [[u8; 4]; 256] = points(include_bytes!("grids/iq3_xxs.bin"));
/// Magnitudes of IQ3_S.
pub static IQ3_S: [[u8; 4]; 512] = points(include_bytes!("grids/iq3_s.bin"));

const fn points<const N: usize, const POINTS: usize>(bytes: &[u8]) -> [[u8; N]; POINTS] {
    assert!(bytes.len() == N * POINTS);
    let mut points = [[0; N]; POINTS];
    let mut i = 0;
    while i < bytes.len() {
        points[i / N][i % N] = bytes[i];
        i += 1;
    }
    points
}

const fn signed<const POINTS: usize>(points: [[u8; 8]; POINTS]) -> [[i8; 8]; POINTS] {
    let mut signed = [[0; 8]; POINTS];
    let mut i = 0;
    while i < POINTS * 8 {
        signed[i / 8][i % 8] = points[i / 8][i % 8] as i8;
        i += 1;
    }
    signed
}
