package manifests

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// root is the project's, as seen from here.
const root = "../../.."

// tool returns one that scripts/setup or make build has put into bin/. Without it tests are skipped on a laptop; CI may not.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: run make build and scripts/setup deploy", err)
		}
		t.Skipf("%v: run make build and scripts/setup deploy", err)
	}
	return path
}

func kubectl(t *testing.T) string { return tool(t, "tools/kubectl") }
func helm(t *testing.T) string    { return tool(t, "tools/helm") }

// outcome is what a command did.
type outcome struct {
	stdout, stderr string
	err            error
}

// run starts a command in the project's root, without the caller's kubeconfig or helm settings.
func run(t *testing.T, name string, args ...string) outcome {
	t.Helper()
	return start(t, root, nil, name, args...)
}

func start(t *testing.T, dir string, env []string, name string, args ...string) outcome {
	t.Helper()
	home := t.TempDir()
	var stdout, stderr bytes.Buffer
	c := exec.Command(name, args...)
	c.Dir, c.Stdout, c.Stderr = dir, &stdout, &stderr
	c.Env = append(os.Environ(), "HOME="+home, "KUBECONFIG="+filepath.Join(home, "none"), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	c.Env = append(c.Env, env...)
	err := c.Run()
	return outcome{stdout.String(), stderr.String(), err}
}

// must returns what a command that has to succeed printed.
func (o outcome) must(t *testing.T) string {
	t.Helper()
	if o.err != nil {
		t.Fatalf("%v\n%s%s", o.err, o.stdout, o.stderr)
	}
	return o.stdout
}
