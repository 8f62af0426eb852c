//! The plots that are not a row per figure: what a whole is made of, and how a rate goes with a number.

use super::rows::{GRID, MARGIN, OURS, WIDTH, text_style};
use super::short;
use crate::{BenchError, Figure};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

const BAR_HEIGHT: i32 = 56;
const LEGEND_ROW: i32 = 24;
const LEGEND_COLUMNS: usize = 4;
const CURVE_HEIGHT: u32 = 320;
/// Told apart on paper too: from dark to light, two hues in turn.
const COLORS: [RGBColor; 8] = [
    RGBColor(0x12, 0x3f, 0x66),
    RGBColor(0xd9, 0x8b, 0x1f),
    RGBColor(0x1b, 0x6c, 0xa8),
    RGBColor(0xb5, 0x4b, 0x2a),
    RGBColor(0x4f, 0x9f, 0xd4),
    RGBColor(0xe8, 0xb9, 0x6a),
    RGBColor(0x8f, 0xc6, 0xe8),
    RGBColor(0x7a, 0x85, 0x90),
];

/// One bar cut into parts, in their order, with a legend that has their values.
pub(super) fn whole(parts: &[(&str, f64)], unit: &str) -> Result<String, BenchError> {
    let sum: f64 = parts.iter().map(|(_, value)| value).sum();
    let lines = parts.len().div_ceil(LEGEND_COLUMNS) as i32;
    let margin = MARGIN as i32;
    let height = (2 * margin + BAR_HEIGHT + lines * LEGEND_ROW + 8) as u32;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let width = f64::from(WIDTH - 2 * MARGIN);
        let column = width as i32 / LEGEND_COLUMNS as i32;
        let mut left = f64::from(MARGIN);
        for (number, (name, value)) in parts.iter().enumerate() {
            let color = COLORS[number % COLORS.len()];
            let right = left + width * value / sum.max(f64::MIN_POSITIVE);
            let bar = Rectangle::new(
                [(left as i32, margin), (right as i32, margin + BAR_HEIGHT)],
                color.filled(),
            );
            area.draw(&bar).map_err(BenchError::new)?;
            let (row, place) = ((number / LEGEND_COLUMNS) as i32, (number % LEGEND_COLUMNS) as i32);
            let (x, y) = (margin + place * column, margin + BAR_HEIGHT + 12 + row * LEGEND_ROW);
            let key = Rectangle::new([(x, y), (x + 14, y + 14)], color.filled());
            area.draw(&key).map_err(BenchError::new)?;
            let share = 100.0 * value / sum.max(f64::MIN_POSITIVE);
            let label = format!("{name} {} {unit} ({share:.0} %)", short(*value));
            let label = Text::new(label, (x + 20, y + 7), text_style(HPos::Left));
            area.draw(&label).map_err(BenchError::new)?;
            left = right;
        }
        area.present().map_err(BenchError::new)?;
    }
    Ok(svg)
}

/// Points joined by a line, numbers of a thing across (each twice or ten times the one before, so that they stand at equal
/// distances), the rate upward from zero.
pub(super) fn curve(points: &[(u64, f64)], thing: &str) -> Result<String, BenchError> {
    let top = points.iter().map(|(_, value)| *value).fold(0.0, f64::max) * 1.2;
    let end = points.len().saturating_sub(1) as f64 + 0.5;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, CURVE_HEIGHT)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(MARGIN)
            .x_label_area_size(46)
            .y_label_area_size(90)
            .build_cartesian_2d(-0.5..end, 0.0..top.max(f64::MIN_POSITIVE))
            .map_err(BenchError::new)?;
        let name = |place: &f64| {
            let number = points.get(place.round().max(0.0) as usize);
            match number.filter(|_| (place - place.round()).abs() < 0.01) {
                Some((number, _)) => number.to_string(),
                None => String::new(),
            }
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * points.len() + 1)
            .x_label_formatter(&name)
            .x_desc(thing)
            .y_labels(5)
            .y_label_formatter(&|value| short(*value))
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .label_style(("sans-serif", 13))
            .draw()
            .map_err(BenchError::new)?;
        let placed = || {
            points
                .iter()
                .enumerate()
                .map(|(place, (_, value))| (place as f64, *value))
        };
        chart
            .draw_series(std::iter::once(PathElement::new(
                placed().collect::<Vec<_>>(),
                OURS.stroke_width(2),
            )))
            .map_err(BenchError::new)?;
        chart
            .draw_series(placed().map(|point| Circle::new(point, 4, OURS.filled())))
            .map_err(BenchError::new)?;
        chart
            .draw_series(placed().map(|(place, value)| {
                Text::new(short(value), (place + 0.03, value + top * 0.06), text_style(HPos::Left))
            }))
            .map_err(BenchError::new)?;
        area.present().map_err(BenchError::new)?;
    }
    Ok(svg)
}

/// The numbers that the names beside a figure begin with (`2_cores`), with their values, ascending.
pub(super) fn numbered(figure: &Figure) -> Vec<(u64, f64)> {
    let number = |name: &str| name.split('_').next()?.parse().ok();
    let mut points: Vec<(u64, f64)> = figure
        .against
        .iter()
        .filter_map(|(name, value)| Some((number(name)?, *value)))
        .collect();
    points.sort_unstable_by_key(|(number, _)| *number);
    points
}
