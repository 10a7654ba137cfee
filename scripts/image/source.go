package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// source is what the image says about where it comes from.
type source struct {
	version  string
	revision string
	created  time.Time
}

// describeSource takes VERSION, REVISION and SOURCE_DATE_EPOCH from the environment, and what is missing there from git. A
// source tree without either gives the image of an unknown version, from 1970.
func describeSource() (source, error) {
	s := source{version: os.Getenv("VERSION"), revision: either("REVISION", "git", "rev-parse", "HEAD")}
	if s.version == "" {
		s.version = described()
	}
	epoch := either("SOURCE_DATE_EPOCH", "git", "log", "-1", "--format=%ct")
	if epoch == "" {
		epoch = "0"
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return s, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970", epoch)
	}
	s.created = time.Unix(seconds, 0).UTC()
	return s, nil
}

// described is the tag that git knows, or a name that nobody takes for a release.
func described() string {
	d := output("git", "describe", "--tags", "--match=v*", "--always", "--abbrev=12", "--dirty")
	switch {
	case d == "":
		return "devel"
	case !strings.HasPrefix(d, "v"):
		return "devel-" + d
	}
	return d
}

// either returns the variable, or what the command prints, or nothing.
func either(variable string, command ...string) string {
	if v := os.Getenv(variable); v != "" {
		return v
	}
	return output(command[0], command[1:]...)
}

// output returns nothing where the command fails.
func output(command string, args ...string) string {
	out, err := exec.Command(command, args...).Output()
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(out))
}

// tag is the version as an image reference can carry it.
func (s source) tag() string { return strings.ReplaceAll(s.version, "+", "-") }

// compile builds every program of the project for an architecture and returns their files, by name.
func compile(s source, arch string) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "ip-masq-image-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	flags := "-s -w -X github.com/ip-masq/ip-masq-cni/pkg/version.release=" + s.version
	// Without the checkout's path (-trimpath) and its state (-buildvcs), two builds of one source are equal.
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags="+flags, "-o", dir+"/", "./plugin/...", "./cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("go build for linux/%s: %w", arch, err)
	}
	return readDir(dir)
}

func readDir(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return files, nil
}
