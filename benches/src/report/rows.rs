//! Plots with a row for each figure: bars from zero, and points on a logarithmic axis.

use super::short;
use crate::{BenchError, Figure};
use plotters::coord::types::RangedCoordf64;
use plotters::element::{Drawable, PointCollection};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

pub(super) const WIDTH: u32 = 1_000;
const ROW_HEIGHT: u32 = 26;
const MARGIN_HEIGHT: u32 = 52;
pub(super) const MARGIN: u32 = 10;
const LABEL_WIDTH: u32 = 300;
pub(super) const OURS: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
pub(super) const THEIRS: RGBColor = RGBColor(0xb0, 0xb4, 0xb8);
pub(super) const GRID: RGBColor = RGBColor(0xe6, 0xe8, 0xeb);
pub(super) const LINE: RGBColor = RGBColor(0xc0, 0x39, 0x2b);

/// One row of a plot: a value with its interval.
pub(super) struct Row {
    pub(super) label: String,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) color: RGBColor,
}

impl Row {
    pub(super) fn of(figure: &Figure) -> Self {
        Self {
            label: figure.id.to_owned(),
            value: figure.value,
            low: figure.low,
            high: figure.high,
            color: OURS,
        }
    }

    pub(super) fn exact(label: &str, value: f64, color: RGBColor) -> Self {
        Self {
            label: label.to_owned(),
            value,
            low: value,
            high: value,
            color,
        }
    }

    pub(super) fn scaled(self, factor: f64) -> Self {
        Self {
            value: self.value * factor,
            low: self.low * factor,
            high: self.high * factor,
            ..self
        }
    }
}

/// Horizontal bars with their intervals from zero, and a line across at `mark`.
pub(super) fn bars(rows: &[Row], mark: Option<f64>) -> Result<String, BenchError> {
    let largest = rows.iter().map(|row| row.high).fold(mark.unwrap_or(0.0), f64::max);
    let end = largest.max(f64::MIN_POSITIVE) * 1.15;
    draw(
        rows,
        0.0..end,
        |value| value,
        short,
        |canvas, row, middle| {
            canvas.plot(Rectangle::new(
                [(0.0, middle - 0.32), (row.value, middle + 0.32)],
                row.color.filled(),
            ))?;
            mark.map_or(Ok(()), |mark| {
                canvas.line((mark, middle - 0.5), (mark, middle + 0.5), LINE)
            })
        },
    )
}

/// Points with their intervals on a logarithmic axis.
pub(super) fn points(rows: &[Row]) -> Result<String, BenchError> {
    let positive = rows.iter().map(|row| row.low).filter(|low| *low > 0.0);
    let smallest = positive.fold(f64::MAX, f64::min).log10().floor();
    let largest = rows
        .iter()
        .map(|row| row.high)
        .fold(f64::MIN_POSITIVE, f64::max)
        .log10()
        .ceil();
    let power = |exponent: f64| short(10_f64.powf(exponent));
    draw(
        rows,
        smallest..largest + 0.5,
        f64::log10,
        power,
        |canvas, row, middle| canvas.plot(Circle::new((row.value.log10(), middle), 4, row.color.filled())),
    )
}

/// What rows are drawn on.
struct Canvas<'c, 'a> {
    chart: &'c mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
}

impl<'a> Canvas<'_, 'a> {
    fn plot<E>(&mut self, element: E) -> Result<(), BenchError>
    where
        for<'b> &'b E: PointCollection<'b, (f64, f64)>,
        E: Drawable<SVGBackend<'a>>,
    {
        self.chart
            .draw_series(std::iter::once(element))
            .map_err(BenchError::new)?;
        Ok(())
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), color: RGBColor) -> Result<(), BenchError> {
        self.plot(PathElement::new(vec![from, to], color.stroke_width(1)))
    }

    fn interval(&mut self, low: f64, high: f64, middle: f64) -> Result<(), BenchError> {
        if low == high {
            return Ok(());
        }
        self.line((low, middle), (high, middle), BLACK)?;
        self.line((low, middle - 0.15), (low, middle + 0.15), BLACK)?;
        self.line((high, middle - 0.15), (high, middle + 0.15), BLACK)
    }
}

/// A plot with a row for each, the first on top. `place` gives where a value lies on the axis, `name` what the axis says there,
/// `mark_of` draws the row's own mark; the interval and the number are drawn here.
fn draw(
    rows: &[Row],
    range: Range<f64>,
    place: impl Fn(f64) -> f64,
    name: impl Fn(f64) -> String,
    mut mark_of: impl FnMut(&mut Canvas<'_, '_>, &Row, f64) -> Result<(), BenchError>,
) -> Result<String, BenchError> {
    let mut svg = String::new();
    {
        let height = MARGIN_HEIGHT + rows.len() as u32 * ROW_HEIGHT;
        let (gap, rows_end) = ((range.end - range.start) / 100.0, rows.len() as f64);
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(MARGIN)
            .x_label_area_size(height - 2 * MARGIN - rows.len() as u32 * ROW_HEIGHT)
            .y_label_area_size(LABEL_WIDTH)
            .build_cartesian_2d(range, rows_end..0.0)
            .map_err(BenchError::new)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(8)
            .x_label_formatter(&|value| name(*value))
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .label_style(("sans-serif", 13))
            .draw()
            .map_err(BenchError::new)?;
        for (number, row) in rows.iter().enumerate() {
            let middle = number as f64 + 0.5;
            let mut canvas = Canvas { chart: &mut chart };
            mark_of(&mut canvas, row, middle)?;
            canvas.interval(place(row.low), place(row.high), middle)?;
            canvas.plot(Text::new(
                short(row.value),
                (place(row.high) + gap, middle),
                text_style(HPos::Left),
            ))?;
            let y = (MARGIN + number as u32 * ROW_HEIGHT + ROW_HEIGHT / 2) as i32;
            let label = Text::new(row.label.clone(), (LABEL_WIDTH as i32, y), text_style(HPos::Right));
            area.draw(&label).map_err(BenchError::new)?;
        }
        area.present().map_err(BenchError::new)?;
    }
    Ok(svg)
}

pub(super) fn text_style(side: HPos) -> TextStyle<'static> {
    ("sans-serif", 13)
        .into_font()
        .color(&BLACK)
        .pos(Pos::new(side, VPos::Center))
}
