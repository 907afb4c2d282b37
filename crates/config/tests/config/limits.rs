//! Too many of anything is told at the first one that is too many.

use buoy_config::Code;

#[test]
fn limits_are_told_at_the_first_thing_too_many() {
    let list = |n: usize, f: &dyn Fn(usize) -> String| {
        (0..n).map(|i| format!("\"{}\"", f(i))).collect::<Vec<_>>().join(", ")
    };
    let peers = list(17, &|i| format!("10.0.0.{}", 11 + i));
    let addresses = list(65, &|i| format!("10.0.0.{}/24", 100 + i));
    let backends = list(129, &|i| format!("10.0.1.{}:80", 1 + i));
    // A range counts as one.
    let ports = list(33, &|i| if i == 0 { "8000-8099/tcp".into() } else { format!("{i}/tcp") });
    let top = "peers = [\"10.0.0.11\"]\nsecret = \"file:cluster.key\"\n";
    let vips: String = (0..1025)
        .map(|i| format!("[[vip]]\naddress = \"10.1.{}.{}/16\"\n", i / 100, 1 + i % 100))
        .collect();
    let vip = "[[vip]]\naddress = \"10.0.0.100/24\"\n[[vip.service]]\n";
    let pool = |n: usize| {
        format!("[[pool]]\nname = \"p{n}\"\naddresses = [\"10.{n}.0.1-10.{n}.2.255/16\"]\n")
    };
    let united: String = (0..5)
        .map(|i| {
            let addresses = list(13, &|j| format!("10.9.{i}.{}/16", 1 + j));
            format!("[[vip]]\ngroup = \"a\"\naddress = [{addresses}]\n")
        })
        .collect();
    let checks =
        (0..17).map(|i| format!("{{ process = \"p{i}\" }}")).collect::<Vec<_>>().join(", ");
    let few_ports = list(6, &|i| format!("{}/tcp", 1 + i));
    let texts = [
        format!(
            "peers = [{peers}]\nsecret = \"file:cluster.key\"\n[[vip]]\naddress = \"10.9.0.1/24\"\n"
        ),
        format!("{top}[[vip]]\naddress = [{addresses}]\n"),
        format!("{top}{vip}port = \"80/tcp\"\nbackends = [{backends}]\n"),
        format!("{top}{vip}port = [{ports}]\nbackends = [\"10.0.1.1:80\"]\n"),
        format!("{top}{vips}"),
        format!("{top}{}{}", pool(1), pool(2)),
        format!("{top}{united}"),
        format!("{top}[[vip]]\naddress = \"10.0.0.100/24\"\ncheck = [{checks}]\n"),
    ];
    for text in texts {
        let report = buoy_config::check_offline(&text, "buoy.toml").map(|_| ()).unwrap_err();
        let codes: Vec<Code> = report.problems().iter().map(|p| p.code).collect();
        assert_eq!(codes, [Code::TooMany], "{report}");
        assert!(report.problems()[0].reason.starts_with("this is number"));
    }
    let text = format!(
        "{top}{}[[pool.service]]\nport = [{few_ports}]\nbackends = [\"10.0.1.1:80\"]\n",
        pool(1)
    );
    let report = buoy_config::check_offline(&text, "buoy.toml").map(|_| ()).unwrap_err();
    assert!(report.summary().contains("6 ports on 767 addresses"), "{report}");
}
