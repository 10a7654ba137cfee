package netnstest

import (
	"os"
	"path/filepath"
	"strings"
)

// families and roles make up the plain names of the iptables programs.
var (
	families = []string{"iptables", "ip6tables"}
	roles    = []string{"", "-save", "-restore"}
)

// Variants are the two programs behind the name iptables.
func Variants() []string { return []string{"nft", "legacy"} }

// IPTables returns a PATH on which iptables, ip6tables, and their -save and
// -restore are those of the variant, "nft" or "legacy", whatever the machine's
// default is. iptables-nft and iptables-legacy stay reachable by these names.
func IPTables(t TB, variant string) string {
	t.Helper()
	dir := tempDir(t)
	for _, family := range families {
		for _, role := range roles {
			program, err := lookPath(family+"-"+variant+role, systemPATH())
			if err == nil {
				// The program looks at its own name to know what it is.
				program, err = filepath.EvalSymlinks(program)
			}
			if err == nil {
				err = os.Symlink(program, filepath.Join(dir, family+role))
			}
			if err != nil {
				t.Fatalf("iptables variant %s: %v", variant, err)
			}
		}
	}
	return dir + ":" + systemPATH()
}

// NoIPTables returns a PATH on which everything is but iptables, ip6tables,
// ebtables, arptables and xtables.
func NoIPTables(t TB) string {
	t.Helper()
	farm := tempDir(t)
	for _, dir := range filepath.SplitList(systemPATH()) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.Contains(e.Name(), "tables") {
				continue
			}
			// The first directory of a PATH wins; later ones exist already.
			_ = os.Symlink(filepath.Join(dir, e.Name()), filepath.Join(farm, e.Name()))
		}
	}
	return farm
}

// SetPATH makes all commands in the Space use the PATH.
func (s *Space) SetPATH(path string) { s.Env = append(s.Env, "PATH="+path) }
