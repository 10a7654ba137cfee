package cli

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// value is a flag whose text is checked as it is parsed, so that the error names the flag.
type value struct {
	text string
	set  func(string) error
}

func (v *value) String() string { return v.text }

func (v *value) Type() string { return "string" }

func (v *value) Set(text string) error {
	err := v.set(text)
	if err == nil {
		v.text = text
	}
	return err
}

// Parsed registers a flag whose text means a T. The default has to be one that parses.
func Parsed[T any](flags *pflag.FlagSet, to *T, name, byDefault, usage string, parse func(string) (T, error)) {
	v := &value{set: func(text string) error {
		parsed, err := parse(text)
		if err == nil {
			*to = parsed
		}
		return err
	}}
	if err := v.Set(byDefault); err != nil {
		panic(fmt.Sprintf("default of --%s: %v", name, err))
	}
	flags.Var(v, name, usage)
}

// Text registers a flag that may not be empty, as an unset variable in a manifest would make it.
func Text(flags *pflag.FlagSet, to *string, name, byDefault, usage string) {
	Parsed(flags, to, name, byDefault, usage, func(text string) (string, error) {
		if text == "" {
			return "", fmt.Errorf("give it a value, or leave the flag out for %s", byDefault)
		}
		return text, nil
	})
}

// OneOf registers a flag that takes one of a few words, the first by default.
func OneOf(flags *pflag.FlagSet, to *string, name, usage string, words ...string) {
	Parsed(flags, to, name, words[0], usage, func(text string) (string, error) {
		if slices.Contains(words, text) {
			return text, nil
		}
		last := len(words) - 1
		return "", fmt.Errorf("want %s or %s", strings.Join(words[:last], ", "), words[last])
	})
}

// Address registers a flag for HOST:PORT, or nothing.
func Address(flags *pflag.FlagSet, to *string, name, byDefault, usage string) {
	Parsed(flags, to, name, byDefault, usage, func(text string) (string, error) {
		if text == "" {
			return "", nil
		}
		_, port, err := net.SplitHostPort(text)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return "", errors.New("want HOST:PORT, such as " + byDefault)
		}
		return text, nil
	})
}
