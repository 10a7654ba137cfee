package monitoring

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// root is the project's, as seen from here.
const root = "../../.."

// ruleFile is a rule file of Prometheus, as far as the tests look into it.
type ruleFile struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []struct {
			Alert       string            `json:"alert"`
			Expr        string            `json:"expr"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"rules"`
	} `json:"groups"`
}

func TestAlertsAreValid(t *testing.T) {
	promtool(t, root, "check", "rules", "conf/monitoring/alerts.yaml")
}

// Every alert fires when it should and is quiet when it should be.
func TestAlertsFire(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{root + "/conf/monitoring/alerts.yaml", "testdata/alerts_test.yaml"} {
		write(t, filepath.Join(dir, filepath.Base(file)), read(t, file))
	}
	promtool(t, dir, "test", "rules", "alerts_test.yaml")

	var cases struct {
		Tests []struct {
			Name string `json:"name"`
		} `json:"tests"`
	}
	decode(t, "testdata/alerts_test.yaml", &cases)
	tested := map[string]bool{}
	for _, c := range cases.Tests {
		tested[c.Name] = true
	}
	for alert := range alerts(t) {
		for _, kind := range []string{" fires", " is quiet"} {
			if !tested[alert+kind] {
				t.Errorf("testdata/alerts_test.yaml has no case %q", alert+kind)
			}
		}
	}
}

func TestAlertsHelp(t *testing.T) {
	var file ruleFile
	decode(t, root+"/conf/monitoring/alerts.yaml", &file)
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s: an alert needs a summary and a description of what to do", rule.Alert)
			}
			switch rule.Labels["severity"] {
			case "critical", "warning", "info":
			default:
				t.Errorf("%s: severity is %q", rule.Alert, rule.Labels["severity"])
			}
		}
	}
}

// The copies for kustomize and the chart are equal to the originals.
func TestCopies(t *testing.T) {
	overlay, chart := root+"/conf/kustomize/overlays/prometheus-operator/", root+"/conf/helm/ip-masq-agent/monitoring/"
	for copied, original := range map[string]string{
		overlay + "dashboard.json": "dashboard.json",
		chart + "dashboard.json":   "dashboard.json",
		chart + "alerts.yaml":      "alerts.yaml",
	} {
		if read(t, copied) != read(t, root+"/conf/monitoring/"+original) {
			t.Errorf("cp conf/monitoring/%s %s makes them equal again", original, strings.TrimPrefix(copied, root+"/"))
		}
	}
	var object struct {
		Spec any `json:"spec"`
	}
	var original any
	decode(t, overlay+"prometheusrule.yaml", &object)
	decode(t, root+"/conf/monitoring/alerts.yaml", &original)
	if diff := cmp.Diff(original, object.Spec); diff != "" {
		t.Errorf("the spec of prometheusrule.yaml is not conf/monitoring/alerts.yaml\n%s", diff)
	}
}

// alerts are the expressions of all alerts, by name.
func alerts(t *testing.T) map[string]string {
	t.Helper()
	var file ruleFile
	decode(t, root+"/conf/monitoring/alerts.yaml", &file)
	exprs := map[string]string{}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			exprs[rule.Alert] = rule.Expr
		}
	}
	return exprs
}

// panels are the expressions of the dashboard, by the title of their panel.
func panels(t *testing.T) map[string][]string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal([]byte(read(t, root+"/conf/monitoring/dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	exprs := map[string][]string{}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			exprs[panel.Title] = append(exprs[panel.Title], target.Expr)
		}
	}
	return exprs
}

func decode(t *testing.T, path string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, path)), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// program finds one of Debian's package prometheus. Without it tests are skipped on a laptop; CI may not.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, "bin/tools", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: run scripts/setup deploy", err)
		}
		t.Skipf("%v: run scripts/setup deploy", err)
	}
	return path
}

func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	c := exec.Command(program(t, "promtool"), args...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
