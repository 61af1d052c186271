;; Vector kernels on one linear memory. Offsets are in bytes, counts in floats and multiples of 4; callers pad with zeros.
;; `node scripts/kernels.mjs` turns this file into kernels-wasm.ts; a test holds the two equal.
(module
  (import "env" "memory" (memory 1))

  ;; dst[i] += src[i]
  (func (export "add") (param $dst i32) (param $src i32) (param $n i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $dst) (i32.shl (local.get $n) (i32.const 2))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $dst) (local.get $end)))
        (v128.store (local.get $dst) (f32x4.add (v128.load (local.get $dst)) (v128.load (local.get $src))))
        (local.set $dst (i32.add (local.get $dst) (i32.const 16)))
        (local.set $src (i32.add (local.get $src) (i32.const 16)))
        (br $next))))

  ;; dst[i] = a * dst[i] + b * src[i]
  (func (export "blend") (param $dst i32) (param $src i32) (param $n i32) (param $a f32) (param $b f32)
    (local $end i32)
    (local.set $end (i32.add (local.get $dst) (i32.shl (local.get $n) (i32.const 2))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $dst) (local.get $end)))
        (v128.store (local.get $dst)
          (f32x4.add (f32x4.mul (v128.load (local.get $dst)) (f32x4.splat (local.get $a)))
                     (f32x4.mul (v128.load (local.get $src)) (f32x4.splat (local.get $b)))))
        (local.set $dst (i32.add (local.get $dst) (i32.const 16)))
        (local.set $src (i32.add (local.get $src) (i32.const 16)))
        (br $next))))

  ;; sum of x[i]^2, accumulated in float64
  (func (export "sumSquares") (param $x i32) (param $n i32) (result f64)
    (local $end i32) (local $v v128) (local $low v128) (local $high v128) (local $a v128) (local $b v128)
    (local.set $end (i32.add (local.get $x) (i32.shl (local.get $n) (i32.const 2))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $x) (local.get $end)))
        (local.set $v (v128.load (local.get $x)))
        (local.set $low (f64x2.promote_low_f32x4 (local.get $v)))
        (local.set $high (f64x2.promote_low_f32x4 (i8x16.shuffle 8 9 10 11 12 13 14 15 0 1 2 3 4 5 6 7 (local.get $v) (local.get $v))))
        (local.set $a (f64x2.add (local.get $a) (f64x2.mul (local.get $low) (local.get $low))))
        (local.set $b (f64x2.add (local.get $b) (f64x2.mul (local.get $high) (local.get $high))))
        (local.set $x (i32.add (local.get $x) (i32.const 16)))
        (br $next)))
    (f64.add
      (f64.add (f64x2.extract_lane 0 (local.get $a)) (f64x2.extract_lane 1 (local.get $a)))
      (f64.add (f64x2.extract_lane 0 (local.get $b)) (f64x2.extract_lane 1 (local.get $b)))))

  ;; AdamW: g *= gscale; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; p = p * keep - rate * m / (sqrt(v) * correct + eps)
  (func (export "adamw") (param $p i32) (param $m i32) (param $v i32) (param $g i32) (param $n i32)
    (param $gscale f32) (param $b1 f32) (param $c1 f32) (param $b2 f32) (param $c2 f32)
    (param $rate f32) (param $correct f32) (param $eps f32) (param $keep f32)
    (local $end i32) (local $x v128) (local $mm v128) (local $vv v128)
    (local.set $end (i32.add (local.get $p) (i32.shl (local.get $n) (i32.const 2))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $p) (local.get $end)))
        (local.set $x (f32x4.mul (v128.load (local.get $g)) (f32x4.splat (local.get $gscale))))
        (local.set $mm (f32x4.add (f32x4.mul (v128.load (local.get $m)) (f32x4.splat (local.get $b1)))
                                  (f32x4.mul (local.get $x) (f32x4.splat (local.get $c1)))))
        (local.set $vv (f32x4.add (f32x4.mul (v128.load (local.get $v)) (f32x4.splat (local.get $b2)))
                                  (f32x4.mul (f32x4.mul (local.get $x) (local.get $x)) (f32x4.splat (local.get $c2)))))
        (v128.store (local.get $m) (local.get $mm))
        (v128.store (local.get $v) (local.get $vv))
        (v128.store (local.get $p)
          (f32x4.sub
            (f32x4.mul (v128.load (local.get $p)) (f32x4.splat (local.get $keep)))
            (f32x4.div
              (f32x4.mul (local.get $mm) (f32x4.splat (local.get $rate)))
              (f32x4.add (f32x4.mul (f32x4.sqrt (local.get $vv)) (f32x4.splat (local.get $correct))) (f32x4.splat (local.get $eps))))))
        (local.set $p (i32.add (local.get $p) (i32.const 16)))
        (local.set $m (i32.add (local.get $m) (i32.const 16)))
        (local.set $v (i32.add (local.get $v) (i32.const 16)))
        (local.set $g (i32.add (local.get $g) (i32.const 16)))
        (br $next))))

  ;; w[i, j] += scale * sum over k of b[i, k] a[k, j], in float64 and in order of k, rounded once. w [rows, 4 groups] float32; a [groups, rank, 4] float32;
  ;; b [rows, rank] float64. Two rows at a time, which share what is read of a: rows is even.
  (func (export "addLowRank") (param $w i32) (param $a i32) (param $b i32) (param $rows i32) (param $groups i32) (param $rank i32) (param $scale f64)
    (local $end i32) (local $rowEnd i32) (local $width i32) (local $rankBytes i32) (local $factor i32) (local $tile i32) (local $tileEnd i32)
    (local $v v128) (local $low v128) (local $high v128) (local $f v128) (local $low0 v128) (local $high0 v128) (local $low1 v128) (local $high1 v128)
    (local.set $width (i32.shl (local.get $groups) (i32.const 4)))
    (local.set $rankBytes (i32.shl (local.get $rank) (i32.const 3)))
    (local.set $end (i32.add (local.get $w) (i32.mul (local.get $rows) (local.get $width))))
    (block $done
      (loop $nextRows
        (br_if $done (i32.ge_u (local.get $w) (local.get $end)))
        (local.set $rowEnd (i32.add (local.get $w) (local.get $width)))
        (local.set $tile (local.get $a))
        (loop $nextGroup
          (local.set $low0 (v128.const i64x2 0 0))
          (local.set $high0 (v128.const i64x2 0 0))
          (local.set $low1 (v128.const i64x2 0 0))
          (local.set $high1 (v128.const i64x2 0 0))
          (local.set $factor (local.get $b))
          (local.set $tileEnd (i32.add (local.get $tile) (i32.shl (local.get $rank) (i32.const 4))))
          (loop $nextK
            (local.set $v (v128.load (local.get $tile)))
            (local.set $low (f64x2.promote_low_f32x4 (local.get $v)))
            (local.set $high (f64x2.promote_low_f32x4 (i8x16.shuffle 8 9 10 11 12 13 14 15 0 1 2 3 4 5 6 7 (local.get $v) (local.get $v))))
            (local.set $f (v128.load64_splat (local.get $factor)))
            (local.set $low0 (f64x2.add (local.get $low0) (f64x2.mul (local.get $f) (local.get $low))))
            (local.set $high0 (f64x2.add (local.get $high0) (f64x2.mul (local.get $f) (local.get $high))))
            (local.set $f (v128.load64_splat (i32.add (local.get $factor) (local.get $rankBytes))))
            (local.set $low1 (f64x2.add (local.get $low1) (f64x2.mul (local.get $f) (local.get $low))))
            (local.set $high1 (f64x2.add (local.get $high1) (f64x2.mul (local.get $f) (local.get $high))))
            (local.set $factor (i32.add (local.get $factor) (i32.const 8)))
            (local.set $tile (i32.add (local.get $tile) (i32.const 16)))
            (br_if $nextK (i32.lt_u (local.get $tile) (local.get $tileEnd))))
          (local.set $f (f64x2.splat (local.get $scale)))
          (local.set $v (v128.load (local.get $w)))
          (local.set $low (f64x2.add (f64x2.promote_low_f32x4 (local.get $v)) (f64x2.mul (local.get $f) (local.get $low0))))
          (local.set $high (f64x2.add
            (f64x2.promote_low_f32x4 (i8x16.shuffle 8 9 10 11 12 13 14 15 0 1 2 3 4 5 6 7 (local.get $v) (local.get $v)))
            (f64x2.mul (local.get $f) (local.get $high0))))
          (v128.store (local.get $w)
            (i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23 (f32x4.demote_f64x2_zero (local.get $low)) (f32x4.demote_f64x2_zero (local.get $high))))
          (local.set $v (v128.load (i32.add (local.get $w) (local.get $width))))
          (local.set $low (f64x2.add (f64x2.promote_low_f32x4 (local.get $v)) (f64x2.mul (local.get $f) (local.get $low1))))
          (local.set $high (f64x2.add
            (f64x2.promote_low_f32x4 (i8x16.shuffle 8 9 10 11 12 13 14 15 0 1 2 3 4 5 6 7 (local.get $v) (local.get $v)))
            (f64x2.mul (local.get $f) (local.get $high1))))
          (v128.store (i32.add (local.get $w) (local.get $width))
            (i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23 (f32x4.demote_f64x2_zero (local.get $low)) (f32x4.demote_f64x2_zero (local.get $high))))
          (local.set $w (i32.add (local.get $w) (i32.const 16)))
          (br_if $nextGroup (i32.lt_u (local.get $w) (local.get $rowEnd))))
        (local.set $w (i32.add (local.get $w) (local.get $width)))
        (local.set $b (i32.add (local.get $b) (i32.shl (local.get $rankBytes) (i32.const 1))))
        (br $nextRows))))

  ;; whether any 16-bit word of n bytes (a multiple of 16) has all bits of mask
  (func (export "anyMasked16") (param $x i32) (param $n i32) (param $mask i32) (result i32)
    (local $end i32) (local $m v128) (local $found v128)
    (local.set $end (i32.add (local.get $x) (local.get $n)))
    (local.set $m (i16x8.splat (local.get $mask)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $x) (local.get $end)))
        (local.set $found
          (v128.or (local.get $found) (i16x8.eq (v128.and (v128.load (local.get $x)) (local.get $m)) (local.get $m))))
        (local.set $x (i32.add (local.get $x) (i32.const 16)))
        (br $next)))
    (v128.any_true (local.get $found)))

  ;; the same of 32-bit words
  (func (export "anyMasked32") (param $x i32) (param $n i32) (param $mask i32) (result i32)
    (local $end i32) (local $m v128) (local $found v128)
    (local.set $end (i32.add (local.get $x) (local.get $n)))
    (local.set $m (i32x4.splat (local.get $mask)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $x) (local.get $end)))
        (local.set $found
          (v128.or (local.get $found) (i32x4.eq (v128.and (v128.load (local.get $x)) (local.get $m)) (local.get $m))))
        (local.set $x (i32.add (local.get $x) (i32.const 16)))
        (br $next)))
    (v128.any_true (local.get $found))))
