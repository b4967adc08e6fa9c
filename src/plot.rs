//! Line charts as SVG that is readable in light and dark.
//!
//! plotters draws in fixed colours. Each ink has a colour of its own that is replaced by a CSS
//! variable afterwards, so that the page, or the file by itself, says what it looks like.

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// The width of a chart in pixels.
const WIDTH: u32 = 760;

/// What a line is drawn in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Axes and text.
    Text,
    /// The grid.
    Faint,
    /// The version under observation.
    Candidate,
    /// What it is compared with.
    Baseline,
    /// A limit, and a decision against a version.
    Bad,
    /// A decision for a version.
    Good,
    /// Further lines.
    Other(u8),
}

const INKS: [Ink; 10] = [
    Ink::Text,
    Ink::Faint,
    Ink::Candidate,
    Ink::Baseline,
    Ink::Bad,
    Ink::Good,
    Ink::Other(0),
    Ink::Other(1),
    Ink::Other(2),
    Ink::Other(3),
];

/// The variables that [`svg`] draws with; for the page that charts are put in.
pub const STYLE: &str = "\
:root{--ink0:#24292f;--ink1:#d8dee4;--ink2:#0969da;--ink3:#6e7781;--ink4:#cf222e;--ink5:#1a7f37;\
--ink6:#8250df;--ink7:#bf5b04;--ink8:#0f7b8a;--ink9:#a8327d}\
@media(prefers-color-scheme:dark){:root{--ink0:#e6edf3;--ink1:#30363d;--ink2:#58a6ff;\
--ink3:#9198a1;--ink4:#ff7b72;--ink5:#56d364;--ink6:#bc8cff;--ink7:#f0883e;--ink8:#39c5cf;\
--ink9:#f778ba}}";

impl Ink {
    fn index(self) -> u8 {
        match self {
            Self::Text => 0,
            Self::Faint => 1,
            Self::Candidate => 2,
            Self::Baseline => 3,
            Self::Bad => 4,
            Self::Good => 5,
            Self::Other(number) => 6 + number % 4,
        }
    }

    /// A colour that nothing else has.
    fn stand_in(self) -> RGBColor {
        RGBColor(1, 2, 0xA0 + self.index())
    }
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// From point to point.
    Solid,
    /// From point to point, in dashes.
    Dashed,
    /// The points alone.
    Points,
}

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What the legend calls it; empty: not in the legend.
    pub name: String,
    /// What it is drawn in.
    pub ink: Ink,
    /// How it is drawn.
    pub stroke: Stroke,
    /// In the order of x.
    pub points: Vec<(f64, f64)>,
}

/// How the numbers of an axis are written.
pub type Format<'a> = &'a dyn Fn(f64) -> String;

/// A chart of lines over one pair of axes.
pub struct Chart<'a> {
    /// Above it.
    pub title: &'a str,
    /// Below the x axis.
    pub x_name: &'a str,
    /// Beside the y axis.
    pub y_name: &'a str,
    /// Numbers on the x axis.
    pub x_format: Format<'a>,
    /// Numbers on the y axis.
    pub y_format: Format<'a>,
    /// Values that the y axis reaches at least.
    pub y_reaches: (f64, f64),
    /// The lines, the first at the bottom.
    pub lines: Vec<Line>,
    /// Upright lines: where, in which ink, and what they are called.
    pub marks: Vec<(f64, Ink, String)>,
    /// In pixels.
    pub height: u32,
}

/// Why a chart cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the chart \"{title}\": {reason}")]
pub struct CannotDraw {
    title: String,
    reason: String,
}

/// The chart, to be put into a page that has [`STYLE`].
///
/// # Errors
/// When the plotting library fails.
pub fn svg(chart: &Chart<'_>) -> Result<String, CannotDraw> {
    let mut drawn = String::new();
    draw(chart, &mut drawn)
        .map_err(|error| CannotDraw { title: chart.title.to_owned(), reason: error.to_string() })?;
    for ink in INKS {
        let RGBColor(red, green, blue) = ink.stand_in();
        let colour = format!("\"#{red:02X}{green:02X}{blue:02X}\"");
        drawn = drawn.replace(&colour, &format!("\"var(--ink{})\"", ink.index()));
    }
    Ok(drawn)
}

/// Charts of equal height as a file of their own, one above the other.
#[must_use]
pub fn stack(charts: &[String], height: u32) -> String {
    let whole = u32::try_from(charts.len()).unwrap_or(u32::MAX).saturating_mul(height);
    let mut file = format!(
        "<svg width=\"{WIDTH}\" height=\"{whole}\" viewBox=\"0 0 {WIDTH} {whole}\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n<style>{STYLE}</style>\n"
    );
    let mut below = 0;
    for chart in charts {
        file += "<g transform=\"translate(0 ";
        file += &below.to_string();
        file += ")\">\n";
        file += chart;
        file += "</g>\n";
        below += height;
    }
    file + "</svg>\n"
}

type Failed = Box<dyn std::error::Error>;

fn draw(chart: &Chart<'_>, into: &mut String) -> Result<(), Failed> {
    let root = SVGBackend::with_string(into, (WIDTH, chart.height)).into_drawing_area();
    let text = |size: u32| ("sans-serif", size).into_font().color(&Ink::Text.stand_in());
    let (x, y) = ranges(chart);
    let mut axes = ChartBuilder::on(&root)
        .caption(chart.title, text(16))
        .margin(10)
        .x_label_area_size(38)
        .y_label_area_size(62)
        .build_cartesian_2d(x, y.clone())?;
    axes.configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(Ink::Faint.stand_in())
        .axis_style(Ink::Baseline.stand_in())
        .label_style(text(12))
        .axis_desc_style(text(12))
        .x_labels(8)
        .y_labels(6)
        .x_desc(chart.x_name)
        .y_desc(chart.y_name)
        .x_label_formatter(&|value| (chart.x_format)(*value))
        .y_label_formatter(&|value| (chart.y_format)(*value))
        .draw()?;
    for line in &chart.lines {
        draw_line(&mut axes, line)?;
    }
    for (at, ink, name) in &chart.marks {
        let ends = vec![(*at, y.start), (*at, y.end)];
        let style = ink.stand_in().stroke_width(2);
        let mark = axes.draw_series(DashedLineSeries::new(ends, 2, 3, style))?;
        let ink = ink.stand_in();
        mark.label(name).legend(move |(x, y)| {
            PathElement::new(vec![(x + 8, y - 6), (x + 8, y + 6)], ink.stroke_width(2))
        });
    }
    axes.configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(text(12))
        .draw()?;
    root.present()?;
    Ok(())
}

type Axes<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn draw_line(axes: &mut Axes<'_, '_>, line: &Line) -> Result<(), Failed> {
    let ink = line.ink.stand_in();
    let style = ink.stroke_width(2);
    let points = line.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
    let drawn = match line.stroke {
        Stroke::Solid => axes.draw_series(LineSeries::new(points, style))?,
        Stroke::Dashed => {
            axes.draw_series(DashedLineSeries::new(points.collect::<Vec<_>>(), 6, 4, style))?
        }
        Stroke::Points => {
            axes.draw_series(points.map(|point| Circle::new(point, 3, ink.filled())))?
        }
    };
    if !line.name.is_empty() {
        drawn
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], ink.stroke_width(2)));
    }
    Ok(())
}

/// Both axes, with some air and never empty.
fn ranges(chart: &Chart<'_>) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let finite = |value: &f64| value.is_finite();
    let xs = points().map(|(x, _)| *x).chain(chart.marks.iter().map(|(x, ..)| *x)).filter(finite);
    let (low, high) = chart.y_reaches;
    let ys = points().map(|(_, y)| *y).filter(finite).chain([low, high]);
    let span = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    };
    let (x_low, x_high) = span(&mut xs.into_iter());
    let (y_low, y_high) = span(&mut ys.into_iter());
    let x = if x_low < x_high { x_low..x_high } else { 0.0..1.0 };
    let air = (y_high - y_low) * 0.06;
    let bottom = if y_low < low { y_low - air } else { y_low };
    let y = if y_low < y_high { bottom..y_high + air } else { y_low - 0.5..y_low + 0.5 };
    (x, y)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> String {
        let number = |value: f64| format!("{value}");
        let ink = Ink::Candidate;
        let line = Line { name: "v<2>".to_owned(), ink, stroke: Stroke::Solid, points };
        let dashed = Line { stroke: Stroke::Dashed, ink: Ink::Bad, ..line.clone() };
        let drawn = svg(&Chart {
            title: "evidence",
            x_name: "time",
            y_name: "log10",
            x_format: &number,
            y_format: &number,
            y_reaches: (0.0, 1.0),
            lines: vec![line, dashed],
            marks: vec![(1.5, Ink::Good, "promoted".to_owned())],
            height: 240,
        });
        stack(&[drawn.unwrap()], 240)
    }

    #[test]
    fn nothing_is_drawn_in_a_fixed_colour() {
        let drawn = chart(vec![(0.0, 0.1), (1.0, 0.4), (2.0, f64::NAN), (3.0, 9.0)]);
        let (style, body) = drawn.split_once("</style>").unwrap();
        assert!(style.contains("prefers-color-scheme:dark"));
        assert!(!body.contains("\"#"), "{body}");
        for ink in ["var(--ink0)", "var(--ink1)", "var(--ink2)", "var(--ink4)", "var(--ink5)"] {
            assert!(body.contains(ink), "{ink} is missing");
        }
        assert!(body.contains("v&lt;2&gt;") && !body.contains("NaN"), "{body}");
    }

    #[test]
    fn a_chart_without_points_is_drawn_all_the_same() {
        assert!(chart(Vec::new()).ends_with("</svg>\n"));
    }
}
