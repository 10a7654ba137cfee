package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/ip-masq/ip-masq-cni/pkg/cniresult"
)

// parsePrevious decodes the previous result, which ADD and CHECK cannot do without.
func parsePrevious(conf *netConf) (*cniresult.Result, error) {
	if len(conf.PrevResult) == 0 || string(conf.PrevResult) == "null" {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			"no prevResult: ip-masq is a chained plugin and must stand after the main plugin in the conflist", "")
	}
	result, err := cniresult.Parse(conf.PrevResult, conf.CNIVersion)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be decoded", err.Error())
	}
	return result, nil
}

// printResult passes the previous result on, in the configuration's version.
func printResult(to io.Writer, result *cniresult.Result, version string) error {
	document, err := result.As(version)
	if err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("prevResult cannot be converted to cniVersion %s", version), err.Error())
	}
	printJSON(to, document)
	return nil
}

// printJSON prints one document. A failed write to stdout is the runtime's to notice.
func printJSON(to io.Writer, document any) {
	encoder := json.NewEncoder(to)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "    ")
	_ = encoder.Encode(document)
}
