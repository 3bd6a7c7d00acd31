//! Plots, written by hand as SVG: a few lines over a logarithmic axis need no library.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Left, top, right and bottom.
const MARGINS: [f64; 4] = [64.0, 44.0, 96.0, 52.0];
const COLOURS: [&str; 6] = ["#777777", "#0b6e4f", "#c8553d", "#2e5eaa", "#8e5aa8", "#c99700"];

/// A line: its name and its points, by x.
pub struct Line {
    /// What stands beside it.
    pub name: &'static str,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// A plot of lines over a logarithmic x axis.
pub fn svg(title: &str, x_label: &str, y_label: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (least, most) = points().fold((f64::MAX, f64::MIN), |(a, b), (x, _)| (a.min(x), b.max(x)));
    let top = step(points().map(|(_, y)| y).fold(1.0, f64::max) / 5.0) * 6.0;
    let [left, above, right, below] = MARGINS;
    let x_of = |x: f64| left + (WIDTH - left - right) * (x / least).ln() / (most / least).ln();
    let y_of = |y: f64| HEIGHT - below - (HEIGHT - above - below) * y / top;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"system-ui,sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{left}\" y=\"24\" font-size=\"15\" font-weight=\"600\">{title}</text>\n"
    );
    for index in 0..=6 {
        let value = top / 6.0 * f64::from(index);
        let (y, end) = (y_of(value), WIDTH - right);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {y:.1}H{end}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            left - 8.0,
            y + 4.0
        );
    }
    let ticks = lines.iter().max_by_key(|line| line.points.len()).map_or(&[][..], |line| &line.points);
    for (x, _) in ticks {
        let (at, y) = (x_of(*x), HEIGHT - below + 18.0);
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{x}</text>");
    }
    let (middle, bottom) = ((left + WIDTH - right) / 2.0, HEIGHT - 12.0);
    let _ =
        writeln!(svg, "<text x=\"{middle:.1}\" y=\"{bottom:.1}\" text-anchor=\"middle\">{x_label}</text>");
    let _ =
        writeln!(svg, "<text transform=\"translate(16 {:.1}) rotate(-90)\">{y_label}</text>", HEIGHT * 0.7);
    let mut names = Vec::new();
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> =
            line.points.iter().map(|(x, y)| format!("{:.1} {:.1}", x_of(*x), y_of(*y))).collect();
        let _ = writeln!(
            svg,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join("L")
        );
        if let Some((_, y)) = line.points.last() {
            names.push((y_of(*y), line.name, colour));
        }
    }
    names.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut free = 0.0;
    for (y, name, colour) in names {
        free = f64::max(y, free);
        let (x, y) = (WIDTH - right + 8.0, free + 4.0);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y:.1}\" fill=\"{colour}\">{name}</text>");
        free += 14.0;
    }
    svg.push_str("</svg>\n");
    svg
}

/// The next larger of 1, 2 and 5 times a power of ten.
fn step(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(10.0 * power)
}
