//! The report as a picture: throughput above, the time to the first byte below, over the load of each step. One SVG file, that
//! looks right on light and dark pages alike and needs nothing else.
//!
//! The load's axis is linear, so that growth in proportion is a straight line; the times' axis is logarithmic, for a p99 is
//! easily a hundred times a p50.

use std::fmt::Write as _;

use super::knee::Because;
use super::report::{Report, Step};
use super::table::short;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 640.0;
const LEFT: f64 = 86.0;
const RIGHT: f64 = 690.0;

/// Labels of the load's axis are this far apart at least.
const LABEL_WIDTH: f64 = 44.0;

/// As much of a title as fits the width.
const TITLE_CHARS_MAX: usize = 64;

const STYLE: &str = "\
svg{--paper:#fff;--ink:#1f2328;--grid:#d8dee4;--a:#0b5cad;--b:#0f766e;--c:#b93815}
@media(prefers-color-scheme:dark){svg{--paper:#15181c;--ink:#e6e8eb;--grid:#3a4048;--a:#6cb2ff;--b:#4fd1b5;--c:#ff9a66}}
.paper{fill:var(--paper)}text{fill:var(--ink);font:13px system-ui,sans-serif}.title{font-size:17px;font-weight:600}
.grid{stroke:var(--grid);stroke-width:1}.knee{stroke:var(--ink);stroke-width:1;stroke-dasharray:5 4}
polyline{fill:none;stroke-width:2.2;stroke-linejoin:round}.a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c)}
circle{stroke:none}circle.a,text.a{fill:var(--a);stroke:none}circle.b,text.b{fill:var(--b);stroke:none}
circle.c,text.c{fill:var(--c);stroke:none}";

/// Draws it.
pub(crate) fn svg(report: &Report) -> String {
    let what = if report.streamed { "events" } else { "requests" };
    let throughput =
        |step: &Step| Some(if report.streamed { step.events_per_s } else { step.requests_per_s });
    let quantile = |of: fn(&super::tally::Summary) -> u64| {
        move |step: &Step| step.first_byte_us.as_ref().map(|summary| of(summary).max(1) as f64 / 1000.0)
    };
    let load_axis = format!("load, {}", report.unit);
    let mut drawing = Drawing::new(report);
    let title = format!("sedge load: {}", report.url);
    drawing.head(&title, &format!("Throughput and time to first byte against {load_axis}"));

    let rates = series(report, throughput);
    let above = Axis::linear(&rates, 78.0, 298.0);
    drawing.panel(&above, &format!("throughput, {what} per second"));
    drawing.line("a", what, 4.5, &above, &rates);

    let (median, tail) = (series(report, quantile(|s| s.p50)), series(report, quantile(|s| s.p99)));
    let below = Axis::logarithmic(&[&median[..], &tail[..]].concat(), 362.0, 582.0);
    drawing.panel(&below, "time to first byte, milliseconds");
    // The p99 is never below the p50: their names keep clear of each other.
    drawing.line("b", "p50", 11.0, &below, &median);
    drawing.line("c", "p99", -2.0, &below, &tail);

    if let Some(knee) = report.knee.filter(|knee| knee.because != Because::NotReached) {
        drawing.knee(f64::from(knee.load), &[&above, &below]);
    }
    drawing.text((LEFT + RIGHT) / 2.0, below.bottom + 42.0, "middle", "", &load_axis);
    drawing.out + "</svg>\n"
}

/// Load and value of each step that has one.
fn series(report: &Report, of: impl Fn(&Step) -> Option<f64>) -> Vec<(f64, f64)> {
    report.steps.iter().filter_map(|step| Some((f64::from(step.load), of(step)?))).collect()
}

/// The upright axis of a panel.
struct Axis {
    top: f64,
    bottom: f64,
    least: f64,
    most: f64,
    ticks: Vec<f64>,
    is_logarithmic: bool,
}

impl Axis {
    fn linear(points: &[(f64, f64)], top: f64, bottom: f64) -> Axis {
        let highest = points.iter().map(|point| point.1).fold(0.0, f64::max);
        let apart = nice(highest / 4.0);
        let count = (highest / apart).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|tick| f64::from(tick) * apart).collect();
        Axis { top, bottom, least: 0.0, most: count * apart, ticks, is_logarithmic: false }
    }

    fn logarithmic(points: &[(f64, f64)], top: f64, bottom: f64) -> Axis {
        let values = || points.iter().map(|point| point.1);
        let low = values().fold(f64::INFINITY, f64::min).min(1e9).log10().floor();
        let low = if points.is_empty() { 0.0 } else { low };
        let high = values().fold(0.0, f64::max).max(1e-9).log10().ceil().max(low + 1.0);
        let marks: &[f64] = if high - low > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let (least, most) = (10f64.powf(low), 10f64.powf(high));
        let decades = low as i32..=high as i32;
        let ticks = decades.flat_map(|decade| marks.iter().map(move |mark| mark * 10f64.powi(decade)));
        let ticks = ticks.filter(|tick| *tick <= most * 1.001).collect();
        Axis { top, bottom, least, most, ticks, is_logarithmic: true }
    }

    fn at(&self, value: f64) -> f64 {
        let share = match self.is_logarithmic {
            true => (value / self.least).log10() / (self.most / self.least).log10(),
            false => (value - self.least) / (self.most - self.least),
        };
        self.bottom - share * (self.bottom - self.top)
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `number`.
fn nice(number: f64) -> f64 {
    if number <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(number.log10().floor());
    [1.0, 2.0, 5.0].into_iter().find(|mark| mark * power >= number).unwrap_or(10.0) * power
}

struct Drawing {
    out: String,
    loads: Vec<f64>,
    most_load: f64,
}

impl Drawing {
    fn new(report: &Report) -> Drawing {
        let loads: Vec<f64> = report.steps.iter().map(|step| f64::from(step.load)).collect();
        let most_load = loads.iter().copied().fold(1.0, f64::max);
        Drawing { out: String::new(), loads, most_load }
    }

    /// Writing to a String cannot fail.
    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(arguments);
    }

    fn x(&self, load: f64) -> f64 {
        LEFT + load / self.most_load * (RIGHT - LEFT)
    }

    fn head(&mut self, title: &str, description: &str) {
        let (escaped, description) = (escape(title), escape(description));
        self.write(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-labelledby=\"title description\">\n<title id=\"title\">{escaped}</title>\n\
             <desc id=\"description\">{description}</desc>\n<style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n"
        ));
        let shown: String = title.chars().take(TITLE_CHARS_MAX).collect();
        let dots = if shown.len() < title.len() { "…" } else { "" };
        self.text(LEFT, 34.0, "start", "title", &format!("{shown}{dots}"));
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escape(text);
        self.write(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>\n"
        ));
    }

    fn rule(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.write(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n"
        ));
    }

    fn panel(&mut self, axis: &Axis, title: &str) {
        self.text(LEFT, axis.top - 14.0, "start", "", title);
        for &tick in &axis.ticks {
            let y = axis.at(tick);
            self.rule("grid", (LEFT, y), (RIGHT, y));
            self.text(LEFT - 9.0, y + 4.5, "end", "", &label(tick));
        }
        let mut labelled = f64::NEG_INFINITY;
        for load in self.loads.clone() {
            let x = self.x(load);
            self.rule("grid", (x, axis.bottom), (x, axis.bottom + 5.0));
            if (x - labelled).abs() >= LABEL_WIDTH {
                self.text(x, axis.bottom + 20.0, "middle", "", &label(load));
                labelled = x;
            }
        }
    }

    fn line(&mut self, class: &str, name: &str, name_drop: f64, axis: &Axis, points: &[(f64, f64)]) {
        let places: Vec<_> =
            points.iter().map(|&(load, value)| (self.x(load), axis.at(value), value)).collect();
        let Some(&(x, y, _)) = places.last() else { return };
        let path: Vec<_> = places.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
        self.write(format_args!("<polyline class=\"{class}\" points=\"{}\"/>\n", path.join(" ")));
        for (x, y, value) in places {
            let value = short(value);
            self.write(format_args!(
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\"><title>{value}</title></circle>\n"
            ));
        }
        self.text(x + 9.0, y + name_drop, "start", class, name);
    }

    fn knee(&mut self, load: f64, panels: &[&Axis]) {
        let x = self.x(load);
        for axis in panels {
            self.rule("knee", (x, axis.top), (x, axis.bottom));
        }
        if let Some(first) = panels.first() {
            let (beside, anchor) = if x < LEFT + 120.0 { (6.0, "start") } else { (-6.0, "end") };
            self.text(x + beside, first.bottom - 8.0, anchor, "", &format!("knee: {}", label(load)));
        }
    }
}

/// A number on an axis: without decimals that say nothing.
fn label(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{}M", (n / 1e4).round() / 100.0),
        n if n >= 1e4 => format!("{}k", (n / 10.0).round() / 100.0),
        n => format!("{}", (n * 1e6).round() / 1e6),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::examples::{report, step};

    /// Every tag that is opened is closed, in order, and no `&` or `<` stands for itself.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut pieces = svg.split('<');
        assert_eq!(pieces.next(), Some(""));
        for piece in pieces {
            let (tag, text) = piece.split_once('>').expect("a tag's end");
            assert!(!text.contains('>'), "{text}");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let entities = ["&amp;", "&lt;", "&gt;", "&quot;"];
            assert_eq!(
                text.matches('&').count(),
                entities.iter().map(|name| text.matches(name).count()).sum::<usize>()
            );
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.extend(tag.split(' ').next()),
            }
        }
        assert_eq!(open, [""; 0]);
    }

    #[test]
    fn it_is_well_formed_whatever_was_measured() {
        let steps = vec![step(50, 1e3, 1500), step(100, 1.9e3, 1_500_000), step(200, 1e6, 3)];
        for steps in [Vec::new(), vec![step(1, 0.0, 0)], steps] {
            let svg = svg(&report(steps));
            assert_well_formed(&svg);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn it_names_its_axes_with_units_and_shows_each_step() {
        let svg = svg(&report(vec![step(50, 1e3, 1500), step(100, 1.9e3, 2500)]));
        for text in [
            "throughput, events per second",
            "time to first byte, milliseconds",
            "load, users",
            "knee: 50",
            "prefers-color-scheme:dark",
            ">p50<",
            ">p99<",
            "?&lt;&amp;&gt;",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 6);
    }

    #[test]
    fn axes_hold_their_points() {
        let points = [(50.0, 0.37), (100.0, 12.0)];
        let axis = Axis::logarithmic(&points, 0.0, 100.0);
        assert_eq!((axis.least, axis.most), (0.1, 100.0));
        assert!((axis.at(0.1) - 100.0).abs() < 1e-6 && axis.at(100.0).abs() < 1e-6);
        let axis = Axis::linear(&[(1.0, 2080.0)], 0.0, 100.0);
        assert_eq!(axis.ticks, [0.0, 1000.0, 2000.0, 3000.0]);
        assert_eq!(nice(2000.1), 5000.0);
    }

    #[test]
    fn labels_are_short() {
        for (number, text) in
            [(0.0, "0"), (0.001, "0.001"), (200.0, "200"), (250_000.0, "250k"), (1.5e6, "1.5M")]
        {
            assert_eq!(label(number), text);
        }
    }
}
