//! The figures as one self-contained HTML file: tables, and plots as SVG inside it. Nothing is loaded from anywhere.

use crate::ablation::Worth;
use crate::baseline::{Baseline, Verdict, more_is_better};
use crate::{BenchError, Figure, Machine};
use plotters::coord::types::RangedCoordf64;
use plotters::element::{Drawable, PointCollection};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt::Write as _;
use std::ops::Range;

const WIDTH: u32 = 1_000;
const ROW_HEIGHT: u32 = 26;
const MARGIN_HEIGHT: u32 = 70;
const MARGIN: u32 = 10;
const LABEL_WIDTH: u32 = 300;
const OURS: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const THEIRS: RGBColor = RGBColor(0xb0, 0xb4, 0xb8);
const GRID: RGBColor = RGBColor(0xe6, 0xe8, 0xeb);
const LINE: RGBColor = RGBColor(0xc0, 0x39, 0x2b);

const STYLE: &str = "
    body { font: 15px/1.5 system-ui, sans-serif; max-width: 1040px; margin: 2em auto; padding: 0 1em; color: #1d2126; }
    table { border-collapse: collapse; width: 100%; margin: 1em 0 2em; font-size: 14px; }
    th, td { text-align: left; padding: .3em .6em; border-bottom: 1px solid #e2e5e9; vertical-align: top; }
    td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
    td.id, td.root { font-family: ui-monospace, monospace; font-size: 13px; }
    .worse { color: #c0392b; font-weight: 600; } .better { color: #1e7e46; font-weight: 600; }
    .stamp { color: #59616b; } figure { margin: 1em 0 2em; } figcaption { color: #59616b; margin-bottom: .3em; }
    svg { width: 100%; height: auto; }";

/// Everything a report shows.
pub struct Page<'a> {
    /// Where the figures were taken.
    pub machine: &'a Machine,
    /// The figures.
    pub figures: &'a [Figure],
    /// Ids that were left out, and why.
    pub left_out: &'a [(String, String)],
    /// What they are compared with.
    pub baseline: Option<&'a Baseline>,
    /// What mechanisms are worth; empty where that was not measured.
    pub ablation: &'a [Worth],
}

/// One row of a plot: a value with its interval.
struct Row {
    label: String,
    value: f64,
    low: f64,
    high: f64,
    color: RGBColor,
}

impl Page<'_> {
    /// The page.
    ///
    /// # Errors
    /// A plot cannot be drawn.
    pub fn html(&self) -> Result<String, BenchError> {
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>replicore: figures</title>\
             <style>{STYLE}</style></head><body>\n<h1>replicore: figures</h1>\n<p class=\"stamp\">{}</p>\n",
            escape(&self.machine.line())
        );
        html += "<p>Values are medians; in brackets the 95 % confidence interval of the median, or the whole range where \
                 there are fewer than six runs.</p>\n";
        self.section(&mut html, "Against others in the same run", self.peers()?);
        self.section(&mut html, "Ratios", self.ratios()?);
        self.section(&mut html, "Times, on a logarithmic axis", self.times()?);
        self.section(&mut html, "Against the baseline", self.changes()?);
        self.section(&mut html, "What mechanisms are worth", self.ablation()?);
        for layer in self.layers() {
            self.table(&mut html, layer);
        }
        self.left_out_list(&mut html);
        html += "</body></html>\n";
        Ok(html)
    }

    fn section(&self, html: &mut String, title: &str, plots: Vec<(String, String)>) {
        if plots.is_empty() {
            return;
        }
        let _infallible = writeln!(html, "<h2>{}</h2>", escape(title));
        for (caption, svg) in plots {
            let caption = escape(&caption);
            let _infallible = writeln!(html, "<figure><figcaption>{caption}</figcaption>\n{svg}\n</figure>");
        }
    }

    /// Rates of ours and of the others, one plot per figure that names others.
    fn peers(&self) -> Result<Vec<(String, String)>, BenchError> {
        let with_peers = self.figures.iter().filter(|figure| !figure.against.is_empty());
        with_peers
            .map(|figure| {
                let mut rows: Vec<Row> = figure
                    .against
                    .iter()
                    .map(|(name, value)| {
                        let is_ours = name.starts_with("canister") || name.starts_with("replicore");
                        Row::exact(name, *value, if is_ours { OURS } else { THEIRS })
                    })
                    .collect();
                let is_rate_beside = figure.unit == "x";
                if !is_rate_beside {
                    rows.insert(0, Row::of(figure));
                }
                let unit = if is_rate_beside {
                    "in the unit of each name"
                } else {
                    figure.unit
                };
                let caption = format!("{} = {:.2} {}; bars: {unit}", figure.id, figure.value, figure.unit);
                Ok((caption, bars(&rows, None)?))
            })
            .collect()
    }

    fn ratios(&self) -> Result<Vec<(String, String)>, BenchError> {
        let rows: Vec<Row> = self
            .figures
            .iter()
            .filter(|figure| figure.unit == "x")
            .map(Row::of)
            .collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let caption = "Each id's documentation says what is divided by what; the line is at 1.";
        Ok(vec![(caption.to_owned(), bars(&rows, Some(1.0))?)])
    }

    fn times(&self) -> Result<Vec<(String, String)>, BenchError> {
        let micros = |unit: &str| match unit {
            "ns" => Some(1e-3),
            "us" => Some(1.0),
            "ms" => Some(1e3),
            _ => None,
        };
        let rows: Vec<Row> = self
            .figures
            .iter()
            .filter(|figure| figure.value > 0.0)
            .filter_map(|figure| Some(Row::of(figure).scaled(micros(figure.unit)?)))
            .collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![("Microseconds; less is better.".to_owned(), points(&rows)?)])
    }

    fn changes(&self) -> Result<Vec<(String, String)>, BenchError> {
        let Some(baseline) = self.baseline else {
            return Ok(Vec::new());
        };
        let rows: Vec<Row> = self
            .figures
            .iter()
            .filter_map(|figure| match baseline.judge(figure) {
                Verdict::Same(ratio) => Some(Row::exact(figure.id, ratio, THEIRS)),
                Verdict::Better(ratio) => Some(Row::exact(figure.id, ratio, OURS)),
                Verdict::Worse(ratio) => Some(Row::exact(figure.id, ratio, LINE)),
                Verdict::New => None,
            })
            .collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let caption = "Value over the baseline's; grey is within noise, blue better, red worse.";
        Ok(vec![(caption.to_owned(), bars(&rows, Some(1.0))?)])
    }

    /// Throughput without each mechanism, one plot per application.
    fn ablation(&self) -> Result<Vec<(String, String)>, BenchError> {
        let tables = self.ablation.chunk_by(|one, other| one.workload == other.workload);
        tables
            .map(|table| {
                let rows: Vec<Row> = table
                    .iter()
                    .map(|worth| Row {
                        label: format!("without {}", worth.variant).replace("without all off", "all off"),
                        value: worth.throughput_ratio.value,
                        low: worth.throughput_ratio.low,
                        high: worth.throughput_ratio.high,
                        color: if worth.variant == "all off" { LINE } else { OURS },
                    })
                    .collect();
                let caption = format!(
                    "{}: operations a second over those with everything ({} /s), in turn; below 1 the mechanism is worth \
                     something",
                    table[0].workload,
                    short(table[0].per_second[1].value)
                );
                Ok((caption, bars(&rows, Some(1.0))?))
            })
            .collect()
    }

    /// Layers in the order of their first figure.
    fn layers(&self) -> Vec<&str> {
        let mut layers = Vec::new();
        for figure in self.figures {
            let layer = layer(figure.id);
            if !layers.contains(&layer) {
                layers.push(layer);
            }
        }
        layers
    }

    fn table(&self, html: &mut String, name: &str) {
        let _infallible = writeln!(
            html,
            "<h2>{}</h2>\n<table><tr><th>figure</th><th class=\"number\">value</th><th class=\"number\">interval</th>\
             <th class=\"number\">runs</th><th>better</th><th>against</th><th>root</th></tr>",
            escape(name)
        );
        for figure in self.figures.iter().filter(|figure| layer(figure.id) == name) {
            let against: Vec<String> = figure
                .against
                .iter()
                .map(|(name, value)| format!("{} {}", escape(name), short(*value)))
                .collect();
            let root: String = figure.root.chars().take(12).collect();
            let _infallible = writeln!(
                html,
                "<tr><td class=\"id\">{}{}</td><td class=\"number\">{} {}</td><td class=\"number\">{} .. {}</td>\
                 <td class=\"number\">{}</td><td>{}</td><td>{}</td><td class=\"root\">{root}</td></tr>",
                escape(figure.id),
                self.verdict(figure),
                short(figure.value),
                escape(figure.unit),
                short(figure.low),
                short(figure.high),
                figure.runs,
                if more_is_better(figure.id) { "more" } else { "less" },
                against.join("<br>")
            );
        }
        *html += "</table>\n";
    }

    fn verdict(&self, figure: &Figure) -> String {
        match self.baseline.map(|baseline| baseline.judge(figure)) {
            Some(Verdict::Worse(ratio)) => format!(" <span class=\"worse\">{ratio:.2} of the baseline</span>"),
            Some(Verdict::Better(ratio)) => format!(" <span class=\"better\">{ratio:.2} of the baseline</span>"),
            _ => String::new(),
        }
    }

    fn left_out_list(&self, html: &mut String) {
        if self.left_out.is_empty() {
            return;
        }
        *html += "<h2>Left out</h2>\n<ul>\n";
        for (id, why) in self.left_out {
            let _infallible = writeln!(html, "<li><code>{}</code>: {}</li>", escape(id), escape(why));
        }
        *html += "</ul>\n";
    }
}

impl Row {
    fn of(figure: &Figure) -> Self {
        Self {
            label: figure.id.to_owned(),
            value: figure.value,
            low: figure.low,
            high: figure.high,
            color: OURS,
        }
    }

    fn exact(label: &str, value: f64, color: RGBColor) -> Self {
        Self {
            label: label.to_owned(),
            value,
            low: value,
            high: value,
            color,
        }
    }

    fn scaled(self, factor: f64) -> Self {
        Self {
            value: self.value * factor,
            low: self.low * factor,
            high: self.high * factor,
            ..self
        }
    }
}

/// Horizontal bars with their intervals from zero, and a line across at `mark`.
fn bars(rows: &[Row], mark: Option<f64>) -> Result<String, BenchError> {
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
fn points(rows: &[Row]) -> Result<String, BenchError> {
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

fn text_style(side: HPos) -> TextStyle<'static> {
    ("sans-serif", 13)
        .into_font()
        .color(&BLACK)
        .pos(Pos::new(side, VPos::Center))
}

/// The part of an id before the point.
fn layer(id: &str) -> &str {
    id.split('.').next().unwrap_or(id)
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e6 => format!("{:.3} M", value / 1e6),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_every_figure_and_loads_nothing() {
        let figures = [
            Figure::of("engine.noop_update_us", "us", vec![1.0, 1.1, 1.2], "ab".into()),
            Figure::of("ledger.redis_always_ratio", "x", vec![0.9, 1.0, 1.3], "cd".into())
                .against("canister_rps", vec![900.0])
                .against("redis_always_rps", vec![1_000.0]),
        ];
        let left_out = [("ledger.postgres_ratio".to_owned(), "not <installed>".to_owned())];
        let page = Page {
            machine: &Machine::this(),
            figures: &figures,
            left_out: &left_out,
            baseline: None,
            ablation: &[],
        };
        let html = page.html().unwrap();
        for wanted in ["engine.noop_update_us", "redis_always_rps", "not &lt;installed&gt;"] {
            assert!(html.contains(wanted), "{wanted}");
        }
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        assert!(html.matches("<svg").count() >= 3);
        assert!(!html.contains("src=") && !html.contains("href="));
    }

    #[test]
    fn numbers_are_short() {
        let shown: Vec<_> = [0.0, 0.0123, 0.5, 12.34, 1_234.5, 2_345_678.0].map(short).into();
        assert_eq!(shown, ["0", "0.0123", "0.50", "12.3", "1234", "2.346 M"]);
    }
}
