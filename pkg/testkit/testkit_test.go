package testkit

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

const envInner = "TESTKIT_INNER" // a second copy of this test binary, started by a test

func TestMain(m *testing.M) {
	if os.Getenv(envInner) == "fail" {
		os.Exit(Main(m, func(string) error { return os.ErrInvalid }))
	}
	os.Exit(Main(m, Programs))
}

// TestMainMoves: the tests do not run in the namespace that the test binary was started in, and loopback works there.
func TestMainMoves(t *testing.T) {
	netnstest.Require(t)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	machine, err := os.Readlink("/proc/" + parent(t) + "/ns/net") // exec keeps the process, so the parent is still the go command
	if err != nil {
		t.Fatal(err)
	}
	if own == machine {
		t.Error("the tests run in the network namespace in which they were started")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err := net.DialTimeout("tcp", l.Addr().String(), netnstest.Limit(time.Second))
	if err != nil {
		t.Fatalf("loopback: %v", err)
	}
	_ = conn.Close()
}

func parent(t *testing.T) string {
	t.Helper()
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.Fields(rest)[1]
}

// TestMainBuilds: the programs are there during the tests and gone afterwards, also when a step fails.
func TestMainBuilds(t *testing.T) {
	if os.Getenv(envInner) != "" {
		_ = os.WriteFile(os.Getenv("TESTKIT_OUT"), []byte(Built()), 0o600)
		return
	}
	for _, name := range []string{"ip-masq", "ip-masq-agent", "ip-masq-installer"} {
		if out, err := exec.Command(Program(name), "--help").CombinedOutput(); err != nil && len(out) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for inner, wantErr := range map[string]bool{"pass": false, "fail": true} {
		temp, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
		ctx, cancel := context.WithTimeout(t.Context(), netnstest.Limit(time.Minute))
		defer cancel()
		again := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^TestMainBuilds$")
		again.Env = append(withoutMove(), envInner+"="+inner, "TESTKIT_OUT="+out, "TMPDIR="+temp)
		if text, err := again.CombinedOutput(); (err != nil) != wantErr {
			t.Errorf("%s: %v\n%s", inner, err, text)
		}
		if built, _ := os.ReadFile(out); (len(built) == 0) != wantErr {
			t.Errorf("%s: the tests had the directory %q", inner, built)
		}
		if left, _ := filepath.Glob(filepath.Join(temp, "ip-masq-test-*")); len(left) != 0 {
			t.Errorf("%s: left behind %v", inner, left)
		}
	}
}

func withoutMove() (env []string) {
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, envMoved+"=") {
			env = append(env, kv)
		}
	}
	return env
}

// TestMainWithoutGo: a machine without Go runs the tests with what another one built, and leaves it there.
func TestMainWithoutGo(t *testing.T) {
	built := filepath.Join(t.TempDir(), "built")
	run := func(test string, env ...string) (string, error) {
		again := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.run="+test)
		again.Env = append(withoutMove(), env...)
		out, err := again.CombinedOutput()
		return string(out), err
	}
	if out, err := run("^TestMainBuilds$", envBuildOnly+"="+built); err != nil || strings.Contains(out, "RUN") {
		t.Fatalf("build only: %v, tests ran or it failed:\n%s", err, out)
	}
	out := filepath.Join(t.TempDir(), "out")
	for range 2 {
		text, err := run("^TestMainBuilds$", envPrebuilt+"="+built, "PATH=/nonexistent", envInner+"=pass", "TESTKIT_OUT="+out)
		if got, _ := os.ReadFile(out); err != nil || string(got) != built {
			t.Fatalf("prebuilt in %s: %v, the tests had %q\n%s", built, err, got, text)
		}
	}
	if _, err := os.Stat(filepath.Join(built, "ip-masq-agent")); err != nil {
		t.Error(err)
	}
}
