//! Seeded traces: Zipf popularity, and the key and value sizes of Facebook's ETC pool (Atikoglu et al.,
//! SIGMETRICS '12, section 4).

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// In (0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }
}

/// Ranks by popularity, scattered over the key space.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "not every user of these traces draws keys by popularity")]
pub(crate) struct Zipf {
    cumulative: Vec<f64>,
}

#[allow(dead_code, reason = "as above")]
impl Zipf {
    pub(crate) fn new(keys: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=keys)
            .map(|rank| {
                sum += (rank as f64).powf(-skew);
                sum
            })
            .collect();
        Self { cumulative }
    }

    pub(crate) fn sample(&self, random: &mut Random) -> u64 {
        let total = self.cumulative[self.cumulative.len() - 1];
        let wanted = random.unit() * total;
        self.cumulative.partition_point(|&sum| sum < wanted) as u64
    }
}

/// Sizes of the ETC pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Etc;

impl Etc {
    pub(crate) fn new() -> Self {
        Self
    }

    /// Generalized extreme value, location 30.7984, scale 8.20449, shape 0.078688.
    pub(crate) fn key_bytes(self, random: &mut Random) -> usize {
        let draw = 30.7984 + 8.20449 * ((-random.unit().ln()).powf(-0.078_688) - 1.0) / 0.078_688;
        (draw as usize).clamp(8, 250)
    }

    /// Generalized Pareto, location 0, scale 214.476, shape 0.348238.
    pub(crate) fn value_bytes(self, random: &mut Random) -> usize {
        let draw = 214.476 * (random.unit().powf(-0.348_238) - 1.0) / 0.348_238;
        (draw as usize).clamp(1, 1 << 20)
    }
}
