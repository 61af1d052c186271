import eslint from "@eslint/js";
import tseslint from "typescript-eslint";

/** Lines end at 120 characters everywhere; an address is the only thing that may not be broken. */
const maxLength = { "max-len": ["error", { code: 120, ignoreUrls: true }] };

export default tseslint.config(
  {
    ignores: [
      "dist/",
      "api-docs/",
      "examples/build/",
      "node_modules/",
      "runs/",
      "test/golden/",
      "src/files/numeric/kernels-wasm.ts",
    ],
  },
  eslint.configs.recommended,
  ...tseslint.configs.recommended,
  { rules: maxLength },
  {
    files: ["src/**/*.ts", "test/**/*.ts", "bench/**/*.ts", "examples/**/*.ts"],
    ignores: ["src/studio/page/**"],
    extends: [...tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { project: "./tsconfig.test.json", tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true, allowArray: true }],
      "@typescript-eslint/no-non-null-assertion": "off",
    },
  },
  {
    // What runs in a browser knows its types, and markup is written in it.
    files: ["src/studio/page/**/*.{ts,tsx}"],
    extends: [...tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { project: "./tsconfig.page.json", tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true, allowArray: true }],
      "@typescript-eslint/no-non-null-assertion": "off",
    },
  },
  {
    // Matchers are of type any, stand-ins have methods that are async for their callers' sake, pages' scripts are run.
    files: ["test/**/*.ts"],
    rules: {
      // Expected lines and snapshots are what a person sees, whole.
      "max-len": [
        "error",
        { code: 120, ignoreUrls: true, ignoreStrings: true, ignoreTemplateLiterals: true, ignoreRegExpLiterals: true },
      ],
      "@typescript-eslint/no-implied-eval": "off",
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/require-await": "off",
      "@typescript-eslint/unbound-method": "off",
    },
  },
  {
    files: ["**/*.mjs", "**/*.js"],
    languageOptions: {
      globals: {
        Buffer: "readonly",
        URL: "readonly",
        URLSearchParams: "readonly",
        console: "readonly",
        performance: "readonly",
        process: "readonly",
        setTimeout: "readonly",
      },
    },
  },
);
