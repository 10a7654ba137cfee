package runtime

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestMain builds the talker and the programs under test. The tests run from the project's root on, where bin/ is.
func TestMain(m *testing.M) {
	talker := func(dir string) error { return testkit.GoBuild(".", dir+"/", "", "./talker") }
	root := func(string) error { return os.Chdir("../..") }
	os.Exit(testkit.Main(m, talker, root, testkit.Programs, productImage))
}

// programs are those under test.
func programs() []string { return []string{"ip-masq", "ip-masq-agent", "ip-masq-installer"} }

// writeFile makes the directories too.
func writeFile(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
