//! Medians and quantiles.

/// The value below which the fraction `q` of sorted `values` lies (nearest rank); 0 for none.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// Middle of the values, the mean of the two middle ones for an even number; 0 for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// Nanoseconds as microseconds, sorted, ready for [`quantile`].
pub fn sorted_micros(nanos: &[u64]) -> Vec<f64> {
    let mut micros: Vec<f64> = nanos.iter().map(|n| *n as f64 / 1e3).collect();
    micros.sort_by(f64::total_cmp);
    micros
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_medians() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(
            (quantile(&sorted, 0.5), quantile(&sorted, 0.99), quantile(&sorted, 0.999)),
            (500.0, 990.0, 999.0)
        );
        assert_eq!((quantile(&sorted, 1.0), quantile(&sorted, 0.0)), (1000.0, 1.0));
        assert_eq!((quantile(&[7.0], 0.999), quantile(&[], 0.5)), (7.0, 0.0));
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0]), median(&[])), (2.0, 2.5, 0.0));
        assert_eq!(sorted_micros(&[2_500, 1_000]), [1.0, 2.5]);
    }
}
