//! The survey of eviction under attack as a plot.

use super::tests::survivors;
use std::fmt::Write;

/// The attacker's entries, in eighths of the capacity.
const EIGHTHS: [usize; 11] = [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64];
/// Uses of each session in the time of the attack, how often the attacker uses each of his entries, and a colour.
const CURVES: [(usize, usize, &str); 5] = [
    (0, 0, "#888888"),
    (1, 0, "#2e7d4f"),
    (1, 1, "#b3541e"),
    (8, 1, "#7a4fa3"),
    (64, 1, "#1769aa"),
];
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 260.0;

/// Draws the share of the sessions that stay over the number of the attacker's entries.
pub(super) fn plot() -> String {
    let x = |eighths: usize| WIDTH * ((eighths as f64).log2() / 6.0);
    let y = |share: f64| HEIGHT * (1.0 - share);
    let mut svg = String::new();
    let mut line = |text: String| writeln!(svg, "{text}").expect("writing to a string does not fail");
    line(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="-60 -30 860 350" font-family="sans-serif" font-size="13">"#
            .into(),
    );
    line(r##"<rect x="-60" y="-30" width="860" height="350" fill="#ffffff"/>"##.into());
    for (share, label) in [(0.0, "0"), (0.5, "0.5"), (1.0, "1")] {
        let height = y(share);
        line(format!(
            r##"<path d="M0 {height:.1}H{WIDTH}" stroke="#dddddd"/><text x="-8" y="{:.1}" text-anchor="end">{label}</text>"##,
            height + 4.0
        ));
    }
    for (eighths, label) in [
        (1, "1/8"),
        (2, "1/4"),
        (4, "1/2"),
        (8, "1"),
        (16, "2"),
        (32, "4"),
        (64, "8"),
    ] {
        line(format!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#,
            x(eighths),
            HEIGHT + 20.0
        ));
    }
    line(format!(
        r#"<text x="0" y="-12">share of the sessions that are still known</text><text x="{:.1}" y="{:.1}" text-anchor="middle">entries of the attacker, in capacities of the cache</text>"#,
        WIDTH / 2.0,
        HEIGHT + 42.0
    ));
    for (row, (uses, repeats, colour)) in CURVES.into_iter().enumerate() {
        let points: Vec<_> = EIGHTHS
            .iter()
            .map(|&eighths| format!("{:.1},{:.1}", x(eighths), y(survivors(eighths, uses, repeats))))
            .collect();
        let label_height = 20.0 + 24.0 * row as f64;
        let attacker = if repeats == 0 { "sent once" } else { "sent twice each" };
        line(format!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/><path d="M{:.1} {label_height}h18" stroke="{colour}" stroke-width="2"/><text x="{:.1}" y="{:.1}">sessions used {uses}x, attack {attacker}</text>"#,
            points.join(" "),
            WIDTH + 10.0,
            WIDTH + 34.0,
            label_height + 4.0
        ));
    }
    line("</svg>".into());
    svg
}
