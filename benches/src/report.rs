//! The figures as one self-contained HTML file: tables, and plots as SVG inside it. Nothing is loaded from anywhere.

mod rows;
mod shapes;

use crate::ablation::Worth;
use crate::baseline::{Baseline, Verdict, more_is_better};
use crate::{BenchError, Figure, Machine};
use rows::{LINE, OURS, Row, THEIRS, bars, points};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const STYLE: &str = "
    body { font: 15px/1.5 system-ui, sans-serif; max-width: 1040px; margin: 2em auto; padding: 0 1em; color: #1d2126; }
    table { border-collapse: collapse; width: 100%; margin: 1em 0 2em; font-size: 14px; }
    th, td { text-align: left; padding: .3em .6em; border-bottom: 1px solid #e2e5e9; vertical-align: top; }
    td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
    td.id, td.root { font-family: ui-monospace, monospace; font-size: 13px; }
    .worse { color: #c0392b; font-weight: 600; } .better { color: #1e7e46; font-weight: 600; }
    .stamp { color: #59616b; } figure { margin: 1em 0 2em; } figcaption { color: #59616b; margin-bottom: .3em; }
    svg { width: 100%; height: auto; }";

/// The stages of `stages.update_us` in the order of a message.
const STAGES: [&str; 8] = [
    "network", "verify", "induct", "execute", "commit", "hash", "log", "certify",
];

/// Ratios to what others do, by which this wins or loses.
const AGAINST_OTHERS: [&str; 8] = [
    "engine.kernels_ratio",
    "engine.kernel_worst_ratio",
    "engine.kernel_f64_ratio",
    "persistence.group_commit_ratio",
    "persistence.log_append_ratio",
    "netstack.http_vs_axum",
    "ledger.postgres_ratio",
    "ledger.redis_always_ratio",
];

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
        self.section(&mut html, "Where the time of a signed update goes", self.stages()?);
        self.section(&mut html, "Scaling", self.scaling()?);
        self.section(&mut html, "Against others in the same run", self.peers()?);
        self.losses(&mut html);
        self.section(&mut html, "Memory and sizes", self.memory()?);
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

    fn figure(&self, id: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.id == id)
    }

    /// What a signed update is made of.
    fn stages(&self) -> Result<Vec<(String, String)>, BenchError> {
        let Some(figure) = self.figure("stages.update_us") else {
            return Ok(Vec::new());
        };
        let part = |name: &&'static str| Some((*name, *figure.against.get(name)?));
        let parts: Vec<(&str, f64)> = STAGES.iter().filter_map(part).collect();
        let caption = format!(
            "Each stage by itself on one core, in batches of 200: {} {} together. The log includes the disk's sync.",
            short(figure.value),
            figure.unit
        );
        Ok(vec![(caption, shapes::whole(&parts, figure.unit)?)])
    }

    fn scaling(&self) -> Result<Vec<(String, String)>, BenchError> {
        let plots = [
            (
                "scaling.cores_rps",
                "cores",
                "1,000 updates a round over 100 canisters; the roots agree.",
            ),
            (
                "scaling.canisters_rps",
                "canisters",
                "1,000 updates a round, one core; more canisters share them.",
            ),
        ];
        let known = plots.iter().filter_map(|(id, thing, about)| {
            let points = shapes::numbered(self.figure(id)?);
            (!points.is_empty()).then_some((thing, about, points))
        });
        known
            .map(|(thing, about, points)| {
                let caption = format!("Updates a second by {thing}, without network and disk: {about}");
                Ok((caption, shapes::curve(&points, thing)?))
            })
            .collect()
    }

    fn memory(&self) -> Result<Vec<(String, String)>, BenchError> {
        let sizes = self.figures.iter().filter(|figure| figure.id.starts_with("sizes."));
        sizes
            .map(|figure| {
                let caption = format!("{}, {}", figure.id, figure.unit);
                Ok((caption, bars(&[Row::of(figure)], None)?))
            })
            .collect()
    }

    /// Others that are better than this in the same run.
    fn losses(&self, html: &mut String) {
        let is_lost = |figure: &&Figure| {
            AGAINST_OTHERS.contains(&figure.id)
                && match more_is_better(figure.id) {
                    true => figure.value < 1.0,
                    false => figure.value > 1.0,
                }
        };
        let compared = self
            .figures
            .iter()
            .filter(|figure| AGAINST_OTHERS.contains(&figure.id))
            .count();
        if compared == 0 {
            return;
        }
        *html += "<h2>Where others are better</h2>\n";
        let lost: Vec<&Figure> = self.figures.iter().filter(is_lost).collect();
        if lost.is_empty() {
            *html += "<p>In none of the comparisons of this run.</p>\n";
            return;
        }
        *html += "<ul>\n";
        for figure in lost {
            let times = match more_is_better(figure.id) {
                true => 1.0 / figure.value.max(f64::MIN_POSITIVE),
                false => figure.value,
            };
            let others: Vec<String> = figure.against.keys().map(|name| escape(name)).collect();
            let beside = match others.is_empty() {
                true => String::new(),
                false => format!(", measured beside {}", others.join(", ")),
            };
            let _infallible = writeln!(
                html,
                "<li><code>{}</code>: the other is {times:.2} times as good{beside}</li>",
                escape(figure.id)
            );
        }
        *html += "</ul>\n";
    }

    /// Ours and the others, one plot for each figure that names others and each unit among them.
    fn peers(&self) -> Result<Vec<(String, String)>, BenchError> {
        let is_drawn_elsewhere = |id: &str| id.starts_with("stages.") || id.starts_with("scaling.");
        let figures = self.figures.iter();
        let with_peers = figures.filter(|figure| !figure.against.is_empty() && !is_drawn_elsewhere(figure.id));
        let mut plots = Vec::new();
        for figure in with_peers {
            let mut rows: BTreeMap<&str, Vec<Row>> = BTreeMap::new();
            rows.entry(figure.unit).or_default().push(Row::of(figure));
            for (name, value) in &figure.against {
                let is_ours = name.starts_with("canister") || name.starts_with("replicore");
                let row = Row::exact(name, *value, if is_ours { OURS } else { THEIRS });
                rows.entry(unit_of(name, figure.unit)).or_default().push(row);
            }
            for (unit, rows) in rows.iter().filter(|(_, rows)| rows.len() > 1) {
                let caption = format!("{} = {} {}; bars: {unit}", figure.id, short(figure.value), figure.unit);
                plots.push((caption, bars(rows, None)?));
            }
        }
        Ok(plots)
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

/// The unit of what stands beside a figure: that of the figure, unless the name ends in another.
fn unit_of(name: &str, own: &'static str) -> &'static str {
    let units = [
        ("_rps", "1/s"),
        ("_us", "us"),
        ("_ms", "ms"),
        ("_ns", "ns"),
        ("_connections", "connections"),
    ];
    let named = units.iter().find(|(end, _)| name.ends_with(end));
    named.map_or(own, |(_, unit)| unit)
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
    use crate::measure::Summary;

    #[test]
    fn the_page_holds_every_figure_and_loads_nothing() {
        let figures = [
            Figure::of("engine.noop_update_us", "us", vec![1.0, 1.1, 1.2], "ab".into()),
            Figure::of("ledger.redis_always_ratio", "x", vec![0.9, 1.0, 1.3], "cd".into())
                .against("canister_rps", vec![900.0])
                .against("redis_always_rps", vec![1_000.0]),
            Figure::of("netstack.http_vs_axum", "x", vec![0.5], String::new()),
            Figure::of("stages.update_us", "us", vec![3.0], String::new())
                .against("verify", vec![2.0])
                .against("log", vec![1.0]),
            Figure::of("scaling.cores_rps", "1/s", vec![180.0], String::new())
                .against("1_core", vec![100.0])
                .against("2_cores", vec![180.0]),
        ];
        let summary = |value| Summary::of(vec![value]);
        let worth = Worth {
            workload: "ledger",
            variant: "all off",
            per_second: [summary(10.0), summary(100.0)],
            throughput_ratio: summary(0.1),
            p50_ratio: summary(9.0),
            p99_ratio: summary(9.0),
            cpu_ratio: summary(1.5),
            start_ratio: Some(summary(2.0)),
        };
        let left_out = [("ledger.postgres_ratio".to_owned(), "not <installed>".to_owned())];
        let page = Page {
            machine: &Machine::this(),
            figures: &figures,
            left_out: &left_out,
            baseline: None,
            ablation: &[worth],
        };
        let html = page.html().unwrap();
        for wanted in [
            "engine.noop_update_us",
            "redis_always_rps",
            "not &lt;installed&gt;",
            "verify 2.00 us (67 %)",
            "Updates a second by cores",
            "the other is 2.00 times as good",
            "What mechanisms are worth",
        ] {
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
